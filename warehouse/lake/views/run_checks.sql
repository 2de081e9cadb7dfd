-- Stretches of runs in which checks found a fault, of the findings; the view checks says what people accepted of them
-- check_name: name of the check, see docs/quarantine.md
-- camera: camera key as in the source; empty: it is of no camera
-- signal: state, action, times, text, or a gripper's title; with the dimension's name in brackets; empty: pictures
-- start_frame: first frame of the stretch
-- end_frame: first frame after the stretch
-- measured: what was measured, in the check's unit
-- usual: the same of the other runs of its task, or the limit that physics or the rate give
-- unit: unit of both
-- other_dataset: dataset of another run that it is about, as of a copy; null: of none
-- other_episode: that run
-- detail: one sentence for people

SELECT dataset, episode_index, chunk, reason AS check_name, coalesce(camera, '') AS camera,
       unnest(stretches, recursive := true)
FROM findings WHERE stretches IS NOT NULL
