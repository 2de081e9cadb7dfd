"""Who wrote the arrays of an episode, by the marks that its writer leaves, and what that writer's conventions are.

One key alone is no mark: `obs` is in the files of five writers, whose last action closes the
gripper in some and opens it in others. What a convention says of a gripper is a prior, which the
runs' own moves can outweigh.
"""

import re
from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import product, repeat
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from ingest.signals.naming import Column

# How dimensions are called, by the path of their part and a number
type Naming = Literal["leaf_k", "leaf or leaf_k", "leaf or leaf.k", "path.k", "leaf"]
# Names of dimensions, by column and width
type Places = Mapping[tuple[str, int], Mapping[int, str]]


class Writer(NamedTuple):
    """`source`: where its convention is written. All `paths` (below the episode), `attributes` (of the episode, or of
    what has it) and `env` (paths in the JSON env_args) have to be there. `state` and `action`: the
    layouts that it writes, of which that with the most parts counts. `known`: parts that are left
    out, by a pattern, and why.
    """

    name: str
    source: str
    paths: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    state: tuple[tuple[str, ...], ...] = ()
    action: tuple[tuple[str, ...], ...] = (("actions",), ("action",))
    # Patterns of parts, with their types, that may be the gripper of a vector in which nothing is called so
    grippers_beside: Mapping[Column, str] = MappingProxyType({})
    grippers: Places = {}  # noqa: RUF012 - an empty mapping that nothing changes
    effectors: Mapping[tuple[str, int], Sequence[str]] = MappingProxyType(
        {}
    )  # names by part and width
    # What a part is called instead of the last part of its path, by a pattern of its path and width
    called: tuple[tuple[str, str], ...] = ()
    naming: Naming = "leaf_k"  # of the dimensions of other parts
    times_from_start: bool = False  # of its rows, which it keeps by a clock
    leaves_empty: bool = False  # a part without values is one that was not recorded
    fps: float | None = None
    texts: tuple[str, ...] = ()  # attributes with the instruction, before others
    # Are layouts each a pattern of a path and its type, of which the first counts?
    are_patterns: bool = False
    # Instead of layouts: words of what a part is called, the first column with one counts
    by_words: Mapping[Column, Set[str]] = MappingProxyType({})
    rgb_mark: bytes = b""  # JPEGs without it have their colours as BGR
    known: tuple[tuple[str, str], ...] = ()

    @property
    def is_closed(self) -> bool:
        """Is no other part state or action than its patterns or words say?"""
        return self.are_patterns or bool(self.by_words)

    @property
    def names_by(self) -> str:
        """Its name, where dimensions are called by its convention rather than by the source's own names."""
        return self.name if self.naming == "leaf_k" else ""

    def layouts(self, column: Column) -> tuple[tuple[str, ...], ...]:
        return self.state if column == "state" else self.action


SIMULATED = "the simulator's own state"
OBJECTS = "what the simulator knows of objects"
COPY = "the same pose in other terms"
# robosuite closes a gripper by +1, at the end of its arm's seven values (robosuite 1.4, 1.5: grippers/*.py)
ROBOSUITE_GRIPPERS: Places = {
    ("action", 7): {6: "gripper_close"},
    ("action", 14): {6: "robot0_gripper_close", 13: "robot1_gripper_close"},
    ("action", 12): {6: "gripper_close"},  # RoboCasa's mobile Panda: then the base, its mode last
}
# Isaac Lab's binary joint action closes below 0 (BinaryJointAction); ManiSkill 3 closes by -1 (pd_joint_pos_mimic)
OPENING_LAST: Places = {("action", 7): {6: "gripper_open"}, ("action", 8): {7: "gripper_open"}}
ROBOT_0 = tuple(f"obs/robot0_{part}" for part in ("eef_pos", "eef_quat", "gripper_qpos"))
ROBOT_1 = tuple(path.replace("robot0", "robot1") for path in ROBOT_0)
ROBOSUITE_KNOWN = (
    ("states", SIMULATED),
    (r"obs/(object|object-state)", OBJECTS),
    (r"obs/robot[01]_(joint|gripper)_.*|obs/robot[01]_eef_.*", COPY),
    (r"obs/(joint_states|ee_ori|ee_pos|ee_states)|robot_states", COPY),
    ("actions_abs", "the same actions, as absolute poses"),
    (r"action_dict/.*", "the same actions, in parts"),
    ("next_obs/.*", "the observations again, one row later"),
    (
        r"env_args|model_file|ep_meta|init_state|.*bddl.*|problem_info|macros_.*|tag|env|env_.*",
        "how it was simulated",
    ),
    ("repository_version", "how it was simulated"),
    ("(num_samples|total|num_demos|date|time)", "counts and dates"),
)

HDF5_WRITERS = (
    Writer(
        "LIBERO",
        "github.com/Lifelong-Robot-Learning/LIBERO, scripts/create_dataset.py",
        paths=("obs/ee_states", "obs/gripper_states"),
        state=(("obs/ee_states", "obs/gripper_states"),),
        grippers=ROBOSUITE_GRIPPERS,
        fps=20.0,
        known=ROBOSUITE_KNOWN,
    ),
    Writer(
        "RoboCasa",
        "github.com/robocasa/robocasa 0.2: PandaOmron, base and base mode after the arm",
        paths=("obs/robot0_base_to_eef_pos",),
        attributes=("env_args",),
        state=(("obs/robot0_base_to_eef_pos", "obs/robot0_base_to_eef_quat", "obs/robot0_gripper_qpos"),),
        grippers=ROBOSUITE_GRIPPERS,
        fps=20.0,
        known=(*ROBOSUITE_KNOWN, (r"obs/robot0_base_.*", COPY)),
    ),
    Writer(
        "robomimic",
        "github.com/ARISE-Initiative/robomimic 0.3, robosuite 1.4",
        paths=("obs/robot0_eef_pos",),
        attributes=("env_args",),
        state=((*ROBOT_0, *ROBOT_1),),
        grippers=ROBOSUITE_GRIPPERS,
        fps=20.0,
        known=ROBOSUITE_KNOWN,
    ),
    Writer(
        "Isaac Lab",
        "github.com/isaac-sim/IsaacLab 2.x: HDF5DatasetFileHandler, BinaryJointAction",
        env=("sim_args/dt",),
        state=(
            ("obs/eef_pos", "obs/eef_quat", "obs/gripper_pos"),
            ("obs/eef_pos", "obs/gripper_pos"),
            ("obs/joint_pos",),
            ("obs/policy/joint_pos",),
        ),
        grippers=OPENING_LAST,
        known=(
            (r"(initial_state|states)/.*", SIMULATED),
            (r"obs/(policy/)?(object|cube)s?(_.*)?|obs/datagen_info/.*", OBJECTS),
            (r"obs/(policy/)?joint_(pos|vel)(_rel)?|obs/(eef_pos|eef_quat)", COPY),
            (r"obs/(policy/)?(last_)?actions?", "the action of the row before"),
            ("processed_actions", "the same actions, as the controller has them"),
            (r"obs/subtask_terms/.*", "marks of the simulator's own subtasks"),
            (r"env_args|seed|num_samples|total", "how it was simulated"),
        ),
    ),
    Writer(
        "ManiSkill",
        "github.com/haosulab/ManiSkill 3: RecordEpisode; control_freq 20 unless the task says another",
        paths=("obs/agent/qpos", "actions"),
        state=(("obs/agent/qpos",),),
        grippers=OPENING_LAST | {("state", 9): {7: "gripper_finger_0", 8: "gripper_finger_1"}},
        fps=20.0,
        known=(
            ("env_states/.*", SIMULATED),
            (r"obs/extra/(tcp_pose|is_grasped)", COPY),
            (r"obs/extra/(obj|goal|tcp_to|.*_to_).*", OBJECTS),
            (r"obs/sensor_param/.*|obs/.*_(cv|gl)", "a camera's calibration"),
            ("(fail|elapsed_steps)", "marks rows or ends"),
        ),
    ),
    Writer(
        "ALOHA",
        "github.com/tonyzhaozh/act, record_episodes.py; Mobile ALOHA adds base_action",
        paths=("observations/qpos",),
        attributes=("sim",),
        state=(("observations/qpos",),),
        action=(("action", "base_action"), ("action",)),
        # Two arms, each of six joints and a gripper
        grippers={("state", 14): {6: "left_gripper", 13: "right_gripper"}},
        known=((r"(sim|compress|compress_len)", "how it was stored"),),
    ),
    Writer(
        "RoboMIND",
        "huggingface.co/datasets/x-humanoid-robomind/RoboMIND: puppet (follower) and master (leader)",
        paths=("puppet/joint_position", "observations/rgb_images"),
        state=(("puppet/joint_position",),),
        action=(("master/joint_position",), ("action",)),
        grippers={("state", 7): {6: "gripper"}, ("state", 8): {7: "gripper"}},
        known=(
            (r"(puppet|master)/end_effector", COPY),
            (r"language_(use|distilbert|muse|bert)", "an embedding"),
        ),
    ),
    Writer(
        "RoboMIND",
        "as above, of two arms",
        paths=("puppet/joint_position_left", "puppet/joint_position_right"),
        state=(("puppet/joint_position_left", "puppet/joint_position_right"),),
        action=(("master/joint_position_left", "master/joint_position_right"), ("action",)),
        grippers={("state", 14): {6: "left_gripper", 13: "right_gripper"}},
        known=((r"(puppet|master)/end_effector.*", COPY),),
    ),
    Writer(
        "DROID",
        "github.com/droid-dataset/droid: trajectory.h5 beside recordings/MP4",
        paths=("observation/robot_state/joint_positions", "action/gripper_position"),
        state=(("observation/robot_state/joint_positions", "observation/robot_state/gripper_position"),),
        action=(("action/cartesian_position", "action/gripper_position"),),
        fps=15.0,
        known=(
            (r"observation/robot_state/.*", COPY),
            (r"action/.*", "the same action in other terms"),
            (r"observation/(timestamp|controller_info|camera_extrinsics|camera_type)/.*", "times, buttons and cameras"),
        ),
    ),
    Writer(
        "xArm recorder",
        "recordings of an xArm that is led by a hand",
        paths=("end_position", "gripper_state"),
        state=(("end_position", "gripper_state"),),
        known=((r"transformed_hand_(coords|frames)", "the hand of the person who leads it"), ("step", "counts")),
    ),
    Writer(
        "EgoDex",
        "github.com/apple/ml-egodex: tracked hands beside a video of each run, 30 pictures a second",
        paths=("transforms/leftHand", "transforms/rightHand"),
        state=(("transforms/leftHand", "transforms/rightHand"),),
        action=(),
        grippers={
            ("state", 32): {k: f"{'right' if k > 15 else 'left'}_pose_{k % 16}" for k in range(32)}
        },
        texts=("llm_description",),
        known=(
            ("transforms/.*", "other joints of the same hands, and the camera"),
            ("confidences/.*", "how sure the tracker is"),
            ("task|llm_.*", "the task in other words"),
        ),
    ),
    # Others that robomimic's tools simulate, such as RoboCasa's GR1: they keep the robot's state under names of its own
    Writer(
        "robomimic's environments",
        "github.com/ARISE-Initiative/robomimic 0.3: env_args and the simulator's states",
        attributes=("env_args",),
        action=(),
        known=(
            ("states", SIMULATED),
            ("obs/object(-state)?", OBJECTS),
            ("env_args|model_file|ep_meta|init_state|problem_info", "how it was simulated"),
        ),
    ),
)  # fmt: skip


def _converter(name: str, source: str, state: tuple[str, ...], *known: tuple[str, str]) -> Writer:
    """Of RLDS: a converter is known by where it keeps the state."""
    return Writer(
        name,
        source,
        state,
        state=(state,),
        action=(("action",), ("actions",)),
        naming="leaf",
        known=(*known, *RLDS_KNOWN),
    )


RLDS_KNOWN = (
    (r"episode_metadata/(has_.*|.*_present)", "says whether a feature is there"),
    (
        r"(episode_metadata/)?(environment_config|experiment_.*|agent_.*|algorithm|num_episodes|is_noop)",
        "bookkeeping",
    ),
    (r"(action/)?terminate_episode", "marks rows or ends"),
)
OPEN_X = "Open X-Embodiment"
OXE = "github.com/google-deepmind/open_x_embodiment, features.json of its datasets of 2023: "
IN_OTHER_TERMS = "the same action in other terms"
# The first of which all parts are there
RLDS_WRITERS = (
    _converter(OPEN_X, OXE, ("observation/state",)),
    _converter(OPEN_X, OXE, ("observation/proprio",)),
    _converter(OPEN_X, OXE, ("observation/robot_state",)),
    _converter("TACO Play", OXE + "taco_play", ("observation/robot_obs",), ("(rel_)?actions.*", IN_OTHER_TERMS)),
    _converter(OPEN_X, OXE, ("robot_state",)),
    _converter(
        "DROID",
        "droid-dataset.github.io: droid 1.0.0",
        ("observation/joint_position", "observation/gripper_position"),
        ("observation/cartesian_position", COPY),
        ("action_dict/.*", IN_OTHER_TERMS),
    ),
    _converter(
        "RT-1",
        OXE + "fractal20220817_data",
        ("observation/base_pose_tool_reached", "observation/gripper_closed"),
        (
            r"observation/(gripper_closedness_commanded|height_to_bottom|orientation_(box|start)|vector_to_go|"
            r"robot_orientation_positions_box|rotation_delta_to_go|src_rotation|workspace_bounds)",
            "what RT-1's collection worked with",
        ),
    ),
    _converter(
        "Kuka",
        OXE + "kuka",
        ("observation/clip_function_input/base_pose_tool_reached", "observation/gripper_closed"),
        (r"observation/clip_function_input/.*", "what the controller worked with"),
    ),
    _converter(
        "FMB",
        OXE + "fmb",
        ("observation/eef_pose", "observation/state_gripper_pose"),
        (r"observation/(joint_pos|eef_force|eef_torque)", "joints and forces beside the pose"),
    ),
    _converter(
        "LIBERO",
        "datasets of LIBERO as RLDS",
        ("observation/EEF_state", "observation/gripper_state"),
        (r"observation/joint_state", COPY),
    ),
    _converter(
        "VIOLA",
        OXE + "viola",
        ("observation/joint_states", "observation/gripper_states"),
        (r"observation/ee_states", COPY),
    ),
    _converter(
        "Jaco Play",
        OXE + "jaco_play",
        ("observation/end_effector_cartesian_pos",),
        (r"observation/joint_pos", COPY),
    ),
    _converter(
        "Berkeley MVP and RPT",
        OXE + "berkeley_mvp_converted_externally_to_rlds",
        ("observation/joint_pos", "observation/gripper"),
    ),
    _converter(
        "Language Table",
        OXE + "language_table",
        ("observation/effector_translation",),
        (r"observation/effector_target_translation", "where the effector was sent"),
    ),
    Writer("RLDS", "github.com/google-research/rlds", action=(("action",),), naming="leaf", known=RLDS_KNOWN),
)  # fmt: skip

UMI_PARTS = ("eef_pos", "eef_rot_axis_angle", "gripper_width")
ZARR_WRITER = Writer(
    "UMI or Diffusion Policy",
    "github.com/real-stanford/universal_manipulation_interface and diffusion_policy, real robots",
    state=(
        tuple(f"robot{r}_{part}" for r, part in product((0, 1), UMI_PARTS)),
        ("robot_eef_pose", "robot_joint"),
        ("robot_eef_pose",),
        ("robot_joint",),
        ("state",),
        ("agent_pos",),
    ),
    action=(("action",), ("actions",)),
    naming="leaf or leaf_k",
)


def _hands(num_left: int, num_right: int) -> tuple[str, ...]:
    lefts = (f"left_hand.{k}" for k in range(num_left))
    return (*lefts, *(f"right_hand.{k}" for k in range(num_right)))


# Two grippers, or finger joints of two hands, the left one first; by their number
AGIBOT_EFFECTORS = {
    1: ("gripper",),
    2: ("left_gripper", "right_gripper"),
    **{width: _hands(width // 2, width - width // 2) for width in range(3, 65)},
}
# Recordings of one maker, whose folders say whose they are
AGIBOT = Writer(
    "AgiBot World",
    "the card of AgiBot World, Alpha and Beta of 2025",
    # Radians; grippers in mm or finger joints in radians
    state=(("state/joint/position", "state/effector/position"),),
    action=(("action/joint/position", "action/effector/position"),),
    effectors={
        (f"{column}/effector/position", width): names
        for column, (width, names) in product(("state", "action"), AGIBOT_EFFECTORS.items())
    },
    naming="path.k",
    times_from_start=True,
    leaves_empty=True,
    known=(
        ("init_scene_text", "the scene at the beginning, not the task"),
        ("task_id", "the number of the task"),
        (
            r"(state|action)/(effector|end|head|joint|robot|waist)/(angular|current_value|effort|force|index|orientation|"
            r"orientation_drift|position|position_drift|velocity|wrench)",
            "another measure of AgiBot's; keys.state of an entry reads it",
        ),
    ),
)
DROID = Writer(
    "DROID",
    "github.com/droid-dataset/droid: trajectory_utils, November 2026",
    state=(
        ("observation/robot_state/joint_positions", "observation/robot_state/gripper_position"),
    ),
    action=(("action/joint_position", "action/gripper_position"),),
    naming="leaf or leaf.k",
    known=(
        (
            r"(action/(robot_state/)?|observation/robot_state/)((prev_|target_)?(cartesian|joint|gripper)_(position|"
            r"velocity)|joint_(positions|velocities)|(prev_)?joint_torques_\w+|motor_torques_\w+|prev_\w+)"
            r"|observation/(timestamp|camera_(extrinsics|intrinsics|type)|controller_info)/.+",
            "DROID's other measures; keys.state or keys.action of an entry reads them",
        ),
        # Of metadata_*.json
        ("lab|user|user_id|date|timestamp|building", "who recorded it, when and where"),
        ("scene_id|robot_serial|droid_version|r2d2_version", "where and on what"),
        ("(ext1|ext2|wrist)_cam_extrinsics", "where a camera stood"),
        ("(ext1|ext2|wrist|left|right)_(svo|mp4)_path|hdf5_path", "where its files are"),
        ("trajectory_length", "the number of its rows"),
    ),
)
# Arrays of a scene, where someone has stored them as plain numbers
RH20T = Writer(
    "RH20T",
    "rh20t.github.io, its API of 2023",
    state=(("transformed/tcp_base.npy", "transformed/gripper.npy"),),
    action=(),
    known=(
        ("finish_time", "when it was recorded"),
        ("calib", "when the cameras were calibrated"),
        ("calib_quality", "how well the cameras were calibrated"),
    ),
)
ARM_JOINTS = ("qpos", "joint_positions")  # ALOHA has both: of the arm, and of the one that leads it
ARM_GRIPPERS = ("gripper_width", "gripper")  # Franka has both: metres, and two buttons
# Of one arm, or of two
TABLE30 = Writer(
    "Table30",
    "the card of RoboChallenge's Table30, and that of Table30 v2",
    state=(
        *product(ARM_JOINTS, ARM_GRIPPERS),
        *product(
            *(
                map("{}/{}".format, repeat(arm), names)
                for arm, names in product(("left", "right"), (ARM_JOINTS, ARM_GRIPPERS))
            )
        ),
    ),
    action=(),
    called=(
        (rf"(left|right)/({'|'.join(ARM_JOINTS)}) \d+", r"\1.joint"),
        (rf"({'|'.join(ARM_JOINTS)}) \d+", "joint"),
        (rf"(left|right)/({'|'.join(ARM_GRIPPERS)}) \d+", r"\1.gripper_opening"),
        (rf"({'|'.join(ARM_GRIPPERS)}) \d+", "gripper_opening"),
    ),
    naming="leaf or leaf.k",
    times_from_start=True,
    known=(
        (
            "ee_positions|end_effector_pose|ee_pose_quaternion|ee_pose_rpy",
            "the pose of the hand: the joints are read",
        ),
        ("joint_vel", "velocities: the joints are read"),
        ("|".join((*ARM_JOINTS, *ARM_GRIPPERS)), "the same of the leading arm, or as a button"),
        # Of task_info.json and task_desc.json, and of an episode
        ("task_name", "the name of the task's folder"),
        ("scoring", "how judges score a run"),
        ("task_tag", "tags of the task"),
        ("task_desc", "a copy of task_desc.json"),
        ("episode_idx|episode_index", "the number of the episode"),
        ("start_time|end_time", "when it was recorded"),
    ),
)
# Words by which recorders call what they keep beside videos: that of an action counts before that of a state
ACTION_WORDS = frozenset(
    {"action", "actions", "command", "commands", "cmd", "control", "ctrl", "target"}
)
STATE_WORDS = frozenset(
    {
        "state", "states", "qpos", "proprio", "proprioception", "observation", "obs", "joint", "joints", "position",
        "positions", "pose", "poses", "eef", "ee", "tcp", "gripper", "grippers", "hand", "hands",
    }
)  # fmt: skip
TIME_WORDS = frozenset({"time", "times", "timestamp", "timestamps"})
BESIDE_VIDEOS = Writer(
    "a recorder that calls it so",
    "recordings of people who keep their numbers beside videos",
    by_words={"action": ACTION_WORDS, "state": STATE_WORDS},
)
LONE_ARRAY = Writer(
    "a recorder of one array",
    "the sample of BridgeData V2 with an array beside each video",
    action=(("(?s).*",),),
    are_patterns=True,
)
OTHER_STEPS = "texts of steps: the same in all rows of an episode, or another form names the steps"
# A column of vectors; else each part of one that info.json declares
LEROBOT_VECTORS: Mapping[Column, tuple[str, ...]] = {
    "state": ("observation.state", "state"),
    "action": ("action", "actions"),
}
LEROBOT = Writer(
    "LeRobot",
    "github.com/huggingface/lerobot 0.6: features of info.json",
    state=(
        *((rf"{re.escape(name)} vectors=True.*",) for name in LEROBOT_VECTORS["state"]),
        (r"(observation\.)?states?\..* declared=True",),
    ),
    action=(
        *((rf"{re.escape(name)} vectors=True.*",) for name in LEROBOT_VECTORS["action"]),
        (r"actions?\..* declared=True",),
    ),
    grippers_beside={
        "state": r"(observation|states?)\..* declared=True",
        "action": r"actions?\..* declared=True",
    },
    are_patterns=True,
    known=(
        ("index", "LeRobot's count of all rows"),
        ("frame_index", "LeRobot's count of an episode's rows"),
        ("is_first", "says which row is an episode's first"),
        (r"(next\.)?(done|truncated)|is_last|is_terminal", "says which row is an episode's last"),
        ("__index_level_0__", "the row numbers of the table's writer"),
    ),
)
# Of columns that files have
LEROBOT_ROWS = LEROBOT._replace(
    known=(
        *LEROBOT.known,
        (r"annotation\..*(valid|quality).*", "GR00T's mark of an episode's quality"),
        ("language_persistent|subtask_annotation|subtask_index", OTHER_STEPS),
    )
)
EXPORTED = Writer(
    "proccorpus",
    "warehouse/exports/lerobot_plan.py: the columns that label rows",
    paths=("progress", "subtask", "language_persistent", "language_events"),
    known=(
        (
            "progress|subtask|language_persistent|language_events",
            "an export of proccorpus: labels are read elsewhere",
        ),
        *LEROBOT_ROWS.known,
    ),
)
LEROBOT_EPISODES = Writer(
    "LeRobot",
    "the same, meta/episodes",
    known=(
        (
            r"(data|videos|meta|stats)/.+|dataset_(from|to)_index",
            "where rows and pictures are, and statistics of them",
        ),
        ("(data|video)_path|(chunk|file)_index", "where rows and pictures are"),
        ("start_state", "the start state of the run; group_field of an entry reads it"),
    ),
)
XR_TELEOPERATE = Writer(
    "xr_teleoperate",
    "github.com/unitreerobotics/xr_teleoperate, utils/episode_writer.py",
    state=(("states/.*",),),
    action=(("actions/.*",),),
    are_patterns=True,
    # An end of one or two values is a gripper's
    called=(
        (r".*/((.*)_)?(ee|hand) [12]", r"\2_gripper"),
        (r".*/((.*)_)?(ee|hand) \d+", r"\2_hand"),
    ),
    naming="leaf or leaf.k",
    known=(("[^/]*", "the goal in other words"),),
)
# Topics with numbers, of the kind `joints` or `numbers`
NO_COMMAND = r"(?i)(?!.*(command|cmd|action|leader|target|desired|goal|setpoint))"
ROS = Writer(
    "ROS",
    "wiki.ros.org/joint_state_publisher: /joint_states; commands by names that drivers use",
    state=(("/joint_states joints",), (f"{NO_COMMAND}.* joints",)),
    action=(((NO_COMMAND + ".*").replace("?!", "?="),),),
    are_patterns=True,
    # rosbag2_storage_mcap's metadata records
    known=(("serialized_metadata|ROS_DISTRO", "what the recorder says of itself"),),
)
# Its pictures were RGB, encoded as if they were BGR, until a JPEG comment began to mark those that are right
# (github.com/RoboTwin-Platform/RoboTwin, issue 473 and pull request 500). Its files show no mark of their own
ROBOTWIN = Writer(
    "RoboTwin",
    "github.com/RoboTwin-Platform/RoboTwin @3399fdf7",
    state=(
        tuple(
            f"joint_action/{side}_{part}"
            for side, part in product(("left", "right"), ("arm", "gripper"))
        ),
    ),
    action=(),
    rgb_mark=b"\xff\xfe\x00\x0aXPL-RGB1",
    known=(
        ("joint_action/vector", "the same joints, side by side"),
        (r"endpose/.*", "the poses that the joints give"),
        (r"observation/[^/]+/(intrinsic_cv|extrinsic_cv|cam2world_gl)", "a camera's calibration"),
        (r"pointcloud|(.*/)?(depth|[a-z]*_?segmentation)", "depth or segments"),
    ),
)


def writer_of(
    writers: Iterable[Writer],
    paths: Set[str],
    attributes: Set[str] = frozenset(),
    env: Mapping[str, Any] = MappingProxyType({}),
) -> Writer | None:
    """The first writer all of whose marks are there; None for none."""
    for writer in writers:
        in_env = all(inside(env, path) is not None for path in writer.env)
        if in_env and paths >= {*writer.paths} and attributes >= {*writer.attributes}:
            return writer
    return None


def called_by(writer: Writer, path: str, width: int) -> str:
    """What a writer calls the part at a path, of so many values a row."""
    for pattern, name in writer.called:
        if match := re.fullmatch(pattern, f"{path} {width}"):
            return match.expand(name)
    return path.rpartition("/")[2]


def known_by(writer: Writer | None, path: str) -> str:
    """Why the writer's part at a path is left out; "" for another one."""
    patterns = writer.known if writer else ()
    return next((reason for pattern, reason in patterns if re.fullmatch(pattern, path)), "")


def inside(content: Any, path: str) -> Any:
    """What lies at a path of an object of objects; None for nothing."""
    for name in path.split("/"):
        content = content.get(name) if isinstance(content, dict) else None
    return content
