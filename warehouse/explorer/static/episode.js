import { player } from "./player.js";
