from warehouse.releases.release import Release as Release
from warehouse.releases.release import card_path as card_path
from warehouse.releases.release import content_hash as content_hash
from warehouse.releases.release import create_release as create_release
from warehouse.releases.release import delete_release as delete_release
from warehouse.releases.release import find_release as find_release
from warehouse.releases.release import get_release as get_release
from warehouse.releases.release import local_release as local_release
