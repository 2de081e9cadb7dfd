"""Who wrote an HDF5 file, by the marks that its writer leaves, and what that writer's conventions are.

One key alone is no mark: `obs` is in the files of five writers, whose last action closes the
gripper in some and opens it in others. What a convention says of a gripper is a prior, which the
runs' own moves can outweigh.
"""

import re
from collections.abc import Mapping, Set
from itertools import product
from typing import Any, Literal, NamedTuple

# Names of dimensions, by column and width
type Places = Mapping[tuple[str, int], Mapping[int, str]]


class Writer(NamedTuple):
    """`source`: where its convention is written. All `paths` (below the episode), `attributes` (of the episode, or of
    what has it) and `env` (paths in the JSON env_args) have to be there. `state` and `action`: the
    layouts that it writes, of which the first that is whole counts. `known`: parts that are left
    out, by a pattern, and why.
    """

    name: str
    source: str
    paths: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    state: tuple[tuple[str, ...], ...] = ()
    action: tuple[tuple[str, ...], ...] = (("actions",), ("action",))
    grippers: Places = {}  # noqa: RUF012 - an empty mapping that nothing changes
    fps: float | None = None
    texts: tuple[str, ...] = ()  # attributes with the instruction, before others
    rgb_mark: bytes = b""  # JPEGs without it have their colours as BGR
    known: tuple[tuple[str, str], ...] = ()

    def layouts(self, column: Literal["state", "action"]) -> tuple[tuple[str, ...], ...]:
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
    (r"env_args|model_file|ep_meta|init_state|.*bddl.*|problem_info|macros_.*|tag|env|env_.*", "how it was simulated"),
    ("repository_version", "how it was simulated"),
    ("(num_samples|total|num_demos|date|time)", "counts and dates"),
)  # fmt: skip

WRITERS = (
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

# Its pictures were RGB, encoded as if they were BGR, until a JPEG comment began to mark those that are right
# (github.com/RoboTwin-Platform/RoboTwin, issue 473 and pull request 500). Its files show no mark of their own
ROBOTWIN = Writer(
    "RoboTwin",
    "github.com/RoboTwin-Platform/RoboTwin @3399fdf7",
    state=(tuple(f"joint_action/{side}_{part}" for side, part in product(("left", "right"), ("arm", "gripper"))),),
    action=(),
    rgb_mark=b"\xff\xfe\x00\x0aXPL-RGB1",
    known=(
        ("joint_action/vector", "the same joints, side by side"),
        (r"endpose/.*", "the poses that the joints give"),
        (r"observation/[^/]+/(intrinsic_cv|extrinsic_cv|cam2world_gl)", "a camera's calibration"),
        (r"pointcloud|(.*/)?(depth|[a-z]*_?segmentation)", "depth or segments"),
    ),
)  # fmt: skip


def writer_of(paths: Set[str], attributes: Set[str], env: Mapping[str, Any]) -> Writer | None:
    """The first writer all of whose marks are there; None for none."""
    for writer in WRITERS:
        in_env = all(_inside(env, path) is not None for path in writer.env)
        if in_env and paths >= {*writer.paths} and attributes >= {*writer.attributes}:
            return writer
    return None


def known_by(writer: Writer | None, path: str) -> str:
    """Why the writer's part at a path is left out; "" for another one."""
    patterns = writer.known if writer else ()
    return next((reason for pattern, reason in patterns if re.fullmatch(pattern, path)), "")


def _inside(content: Any, path: str) -> Any:
    """What lies at a path of an object of objects; None for nothing."""
    for name in path.split("/"):
        content = content.get(name) if isinstance(content, dict) else None
    return content


def rate_of_simulation(env: Mapping[str, Any]) -> list[Any]:
    """What could be the control rate, in the places where writers keep it in env_args."""
    step_s = _inside(env, "sim_args/dt")
    steps = _inside(env, "sim_args/decimation")
    is_stepped = (
        isinstance(step_s, int | float) and isinstance(steps, int | float) and step_s * steps > 0
    )
    stepped = [round(1 / (step_s * steps), 3)] if is_stepped else []
    places = (
        "env_kwargs/control_freq", "control_freq", "env_kwargs/sim_config/control_freq", "fps", "env_kwargs/fps",
        "env_info/env_kwargs/sim_config/control_freq",
    )  # fmt: skip
    return [*(_inside(env, place) for place in places), *stepped]
