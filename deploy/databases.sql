-- Beside Dagster's own database (POSTGRES_DB): the catalog of the lake
CREATE DATABASE lake;
