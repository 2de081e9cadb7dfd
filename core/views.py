"""The views of the lake: SQL over its tables (core/tables). Their text is stored in each lake, and counts as schema."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from core.annotators import FROM_THE_SOURCE, follows_sql, made_by_sql
from core.demonstration_quality import DEMONSTRATION_COLUMNS, DEMONSTRATION_SQL


@dataclass(frozen=True)
class View:
    """One view; `columns` says what its own columns hold, the others are those of the tables it reads."""

    name: str
    comment: str
    sql: str
    columns: Mapping[str, str]


def _views(text: str) -> tuple[View, ...]:
    """Views by their description: `name: comment`, below it `column: comment` two spaces further in, then the SQL,
    eight spaces in. Four spaces: a comment goes on.
    """
    views = []
    for block in re.sub(r"\n {4}(?! )", " ", text).strip("\n").split("\n\n"):
        header, sql = block.split("\n        ", 1)
        (name, comment), *columns = (line.strip().split(": ", 1) for line in header.splitlines())
        views.append(View(name, comment, f"\n        {sql}", dict(columns)))
    return tuple(views)


# From where on a label is odd enough for a person to look at it
MAX_JUMP = 0.5  # change of progress within half a second
MIN_CONFIDENCE = 0.6  # dips of the speed alone, hardly better than chance, give 0.55
MAX_ORDER_RARITY = 0.8  # share of the task's runs whose steps follow each other otherwise
MAX_MEAN_DIFFERENCE = 0.1  # mean difference to the progress of another label run
MAX_LENGTH_Z = 3  # robust standard deviations of the log duration from the task's median
MIN_STEP_S = 0.3  # nothing is done in a shorter step
FAULTY = "a check found a fault"  # the sign, which stands first and gives way to the words of what was found
MOST_FAULTS = 3  # of a run, in words
LOOKS_UNFINISHED, MAY_BE_UNFINISHED = (
    0.5,
    0.2,
)  # how odd a run's end is whose outcome nobody says (p_failure)

MOMENTS = 8  # evenly spread over a run: by them other runs are like it

MOST_WITH_STEPS = 20  # references among the runs of a task that bring their own steps

# Tables of what people said of episodes
STATEMENTS = (
    "corrections",
    "outcomes",
    "reference_marks",
    "episode_marks",
    "takedowns",
    "acceptances",
)


def _located(table: str) -> str:
    """A view of a table of statements by the present numbers of the recordings that they are of."""
    return f"""
located_{table}: Rows of {table} by the present number of their recording; without those of recordings that left
        SELECT w.* REPLACE (coalesce(r.dataset, w.dataset) AS dataset,
                            CASE WHEN r.recording IS NULL THEN w.episode_index ELSE r.episode_index END
                            AS episode_index)
        FROM {table} w LEFT JOIN recordings r ON r.recording = w.recording
        WHERE w.recording IS NULL OR r.recording IS NOT NULL AND r.left_at IS NULL
"""


# Recordings that were taken down, alone or with their dataset
WITHDRAWN = """
          SELECT t.recording, t.reason, t.created_at FROM takedowns t WHERE t.recording IS NOT NULL
          UNION ALL
          SELECT r.recording, t.reason, t.created_at FROM takedowns t JOIN recordings r ON r.dataset = t.dataset
          WHERE t.episode_index IS NULL"""

# Of label_quality as q: nobody says how the run ended, and its label or the other runs of its task say that it failed
UNFINISHED = f"(q.p_failure >= {LOOKS_UNFINISHED} OR q.end_by = 'label' AND q.end_progress < 1)"

# Of embeddings as b, beside what is asked for as a
OF_ANOTHER_RUN = (
    "a.encoder = b.encoder AND (a.dataset <> b.dataset OR a.episode_index <> b.episode_index)"
)
# One pass over all other pictures, with a number for each moment and run in memory
MOMENT_PICTURES = ", ".join(
    "arg_min(e.embedding::FLOAT[256], "
    f"(abs(e.frame_index - {(k + 0.5) / MOMENTS} * c.num_frames), e.frame_index)) AS m{k}"
    for k in range(MOMENTS)
)
MOMENTS_MET = " + ".join(
    f"max(array_cosine_similarity(a.m{k}, b.embedding::FLOAT[256]))::DOUBLE" for k in range(MOMENTS)
)

MIN_ROWS_OF_COPY = (
    8  # different rows that a run must have to be told as a copy of another one by them
)

VIEWS = _views(f"""
episodes: One row per episode: facts, decoded content and its worst finding
  fps: frames per second, measured from the rows' times, else as stated
  cameras: usable cameras, the preferred one first
  duration_s: num_frames / fps
  reason: reason code why the episode cannot be used; null: ok
  status: ok or quarantined
  detail: the reason in words
        WITH worst AS (
          SELECT dataset, episode_index, min_by(reason, (stage, reason)) AS reason,
                 min_by(detail, (stage, reason)) AS detail
          FROM findings WHERE severity = 'unusable' AND episode_index IS NOT NULL GROUP BY ALL)
        SELECT f.dataset, f.episode_index, f.chunk, f.source_id, f.task, f.tasks,
               coalesce(c.num_frames, f.num_rows) AS num_frames, coalesce(c.fps, f.fps) AS fps,
               coalesce(c.num_frames, f.num_rows) / coalesce(c.fps, f.fps) AS duration_s, c.max_drift_s,
               coalesce(c.usable_cameras, f.cameras) AS cameras, f.data_uri, f.success, f.success_source, f."group",
               CASE WHEN w.reason IS NULL THEN 'ok' ELSE 'quarantined' END AS status,
               w.reason, w.detail, f.source_stamp, c.content_hash
        FROM episode_facts f
        LEFT JOIN episode_content c USING (dataset, episode_index)
        LEFT JOIN worst w USING (dataset, episode_index)

quarantine: Episodes (or whole datasets) that cannot be used, each with its worst finding
        SELECT dataset, episode_index, camera, reason, detail, file FROM (
          SELECT *, row_number() OVER (PARTITION BY dataset, episode_index ORDER BY stage, reason, camera) AS nth
          FROM findings WHERE severity = 'unusable') WHERE nth = 1

{"".join(map(_located, STATEMENTS)).strip()}

current_acceptances: Known oddities that people accepted: the newest word on each check of a run, or of all runs
  episode_index: null: all runs of the dataset
        SELECT dataset, episode_index, check_name, why, author, created_at, acceptance_id, recording
        FROM located_acceptances
        QUALIFY row_number() OVER (PARTITION BY dataset, episode_index, check_name
                                   ORDER BY created_at DESC, acceptance_id DESC) = 1 AND is_accepted

checks: Faults that checks of a run's signals found, and where they stand in the run
  start_s: second at which the stretch starts
  end_s: second at which it ends
  is_accepted: a person accepted it: it is known, and not told again
  accepted_by: who accepted it; null: nobody did
  accepted_why: reason, in that person's words
        WITH copied AS (
          SELECT b.dataset, b.episode_index, b.chunk, b.num_frames, a.dataset AS of_dataset,
                 a.episode_index AS of_episode
          FROM episode_content a JOIN episode_content b USING (rows_hash, num_frames)
          WHERE (a.dataset, a.chunk) < (b.dataset, b.chunk) AND len(b.row_sketch) >= {MIN_ROWS_OF_COPY}
          QUALIFY row_number() OVER (PARTITION BY b.dataset, b.episode_index ORDER BY a.dataset, a.episode_index) = 1),
        faults AS (
          FROM run_checks
          UNION ALL BY NAME
          SELECT dataset, episode_index, chunk, 'copy' AS check_name, '' AS camera, '' AS signal, 0 AS start_frame,
                 num_frames AS end_frame, 0.0 AS measured, 0.0 AS usual, 'standard deviations' AS unit,
                 of_dataset AS other_dataset, of_episode AS other_episode,
                 format('a copy of {{}} episode {{}}: the rows are equal', of_dataset, of_episode) AS detail
          FROM copied)
        SELECT k.dataset, k.episode_index, k.chunk, k.check_name, nullif(k.camera, '') AS camera,
               nullif(k.signal, '') AS signal, k.start_frame, k.end_frame, k.start_frame / c.fps AS start_s,
               k.end_frame / c.fps AS end_s, k.measured, k.usual, k.unit, k.other_dataset, k.other_episode, k.detail,
               coalesce(a.author, w.author) IS NOT NULL AS is_accepted, coalesce(a.author, w.author) AS accepted_by,
               coalesce(a.why, w.why) AS accepted_why
        FROM faults k LEFT JOIN episode_content c USING (dataset, episode_index)
        LEFT JOIN current_acceptances a USING (dataset, episode_index, check_name)
        LEFT JOIN (FROM current_acceptances WHERE episode_index IS NULL) w
          ON w.dataset = k.dataset AND w.check_name = k.check_name

open_warnings: Findings that leave their run usable, and that nobody accepted
        SELECT f.* FROM findings f
        LEFT JOIN current_acceptances a
          ON a.dataset = f.dataset AND a.check_name = f.reason AND a.episode_index = f.episode_index
        LEFT JOIN (FROM current_acceptances WHERE episode_index IS NULL) w
          ON w.dataset = f.dataset AND w.check_name = f.reason
        WHERE f.severity = 'warning' AND a.author IS NULL AND w.author IS NULL

current_takedowns: What must not be used or passed on, by the present numbers
  episode_index: null: the whole dataset
  recording: the recording that was taken down; null: the whole dataset
  is_sure: false: the episode is probably that recording; a person has to decide
        SELECT dataset, episode_index, reason, created_at, recording, true AS is_sure FROM located_takedowns
        UNION ALL
        SELECT r.dataset, r.episode_index, 'it is probably a recording that was taken down: ' || t.reason,
               t.created_at, t.recording, false
        FROM recordings r JOIN ({WITHDRAWN.strip()}) t ON t.recording = r.resembles
        WHERE r.left_at IS NULL

active_segments: Segments of each episode's active label
        SELECT s.* FROM segments s JOIN active_runs a
        ON s.dataset = a.dataset AND s.chunk = a.chunk AND s.episode_index = a.episode_index
           AND s.label_run = a.label_run

active_progress: Progress of each episode's active label
        SELECT p.* FROM progress p JOIN active_runs a
        ON p.dataset = a.dataset AND p.chunk = a.chunk AND p.episode_index = a.episode_index
           AND p.label_run = a.label_run

active_outcomes: What the end of each active label rests on
  outcome_assumed: true: the label assumes success
        SELECT q.dataset, q.episode_index, q.label_run, q.end_progress, q.end_by,
               q.end_by = 'assumed' AS outcome_assumed
        FROM label_quality q JOIN active_runs USING (dataset, episode_index, label_run)

frame_embeddings: Embeddings of pictures by a frozen encoder, a few per second; use array_cosine_similarity to compare
    them
  timestamp_s: frame_index / fps
  embedding: 256 numbers for the whole picture; only embeddings of one encoder can be compared
        SELECT b.dataset, b.episode_index, f.task, b.camera, b.frame_index, b.frame_index / c.fps AS timestamp_s,
               b.encoder, b.embedding::FLOAT[256] AS embedding
        FROM embeddings b
        JOIN episode_facts f USING (dataset, episode_index)
        JOIN episode_content c USING (dataset, episode_index)

similar_frames: For each frame with an embedding: the most similar frame of every other run. Ask for one frame: WHERE
    dataset = ... AND episode_index = ... AND frame_index = ...
  other_dataset: dataset of the other run
  other_episode: episode_index of the other run
  other_camera: camera of that frame
  other_frame: frame_index in the other run; the first of equally similar frames
  likeness: cosine similarity of the two embeddings, -1..1
        SELECT dataset, episode_index, camera, frame_index, other_dataset, other_episode, best.camera AS other_camera,
               -best.back AS other_frame, best.likeness AS likeness
        FROM (
          SELECT a.dataset, a.episode_index, a.camera, a.frame_index, b.dataset AS other_dataset,
                 b.episode_index AS other_episode,
                 max({{'likeness': array_cosine_similarity(a.embedding::FLOAT[256], b.embedding::FLOAT[256]),
                      'back': -b.frame_index, 'camera': b.camera}}) AS best
          FROM embeddings a JOIN embeddings b ON {OF_ANOTHER_RUN}
          GROUP BY ALL)

similar_runs: How similar runs are to each other: {MOMENTS} evenly spread moments of a run, each compared with the
    most similar frame of the other run, by one encoder. Ask for one run: WHERE dataset = ... AND episode_index = ...
  other_dataset: dataset of the other run
  other_episode: episode_index of the other run
  likeness: mean cosine similarity over the moments, -1..1
        WITH asked AS (
          SELECT e.dataset, e.episode_index, e.camera, e.encoder, {MOMENT_PICTURES}
          FROM embeddings e JOIN episode_content c USING (dataset, episode_index) GROUP BY ALL)
        SELECT a.dataset, a.episode_index, a.camera, b.dataset AS other_dataset, b.episode_index AS other_episode,
               ({MOMENTS_MET}) / {MOMENTS} AS likeness
        FROM asked a JOIN embeddings b ON {OF_ANOTHER_RUN}
        GROUP BY ALL

review_queue: Suspicious labels that nobody has reviewed, most suspicious first
  score: how likely the label is wrong, from all signs together, 0..1
  signs: the signs, a fault that a check found first, then the strongest
  why: the same in words for people: in place of the first what was found, where and for how long
  disagreement: largest mean difference to the progress of another label run, 0..1
        WITH apart AS (
          SELECT dataset, episode_index, label_run, max(mean_difference) AS disagreement FROM (
            SELECT dataset, episode_index, label_run, mean_difference FROM label_disagreement
            UNION ALL
            SELECT dataset, episode_index, other_run, mean_difference FROM label_disagreement) GROUP BY ALL),
        faults AS (
          SELECT dataset, episode_index, list(detail ORDER BY end_frame - start_frame DESC, detail) AS words
          FROM checks WHERE NOT is_accepted GROUP BY ALL),
        labels AS (
          SELECT q.*, l.confidence, l.needs_review, l.named, x.disagreement, 1 - l.confidence AS doubt,
                 f.words,
                 CASE WHEN {UNFINISHED} THEN greatest(coalesce(p_failure, 0), {LOOKS_UNFINISHED})
                      ELSE p_failure END AS unfinished
          FROM label_quality q
          JOIN active_runs a USING (dataset, episode_index, label_run)
          JOIN episode_labels l USING (dataset, episode_index, label_run)
          LEFT JOIN apart x USING (dataset, episode_index, label_run)
          LEFT JOIN faults f USING (dataset, episode_index)
          WHERE NOT starts_with(label_run, 'human/')),
        -- Each sign: how likely the label is wrong by it alone, and whether it is a reason to look
        signs AS (
          SELECT dataset, episode_index, label_run, unnest([
            {{'why': '{FAULTY}', 'score': 0.6, 'holds': words IS NOT NULL}},
            {{'why': 'the annotator asks for a person', 'score': 1.0, 'holds': needs_review}},
            {{'why': 'label and source contradict each other about success', 'score': 0.9, 'holds': contradicts}},
            {{'why': CASE WHEN unfinished >= {LOOKS_UNFINISHED} THEN 'looks unfinished' ELSE 'may be unfinished' END,
             'score': unfinished, 'holds': unfinished >= {MAY_BE_UNFINISHED}}},
            {{'why': 'the annotator is unsure', 'score': doubt, 'holds': confidence < {MIN_CONFIDENCE}}},
            {{'why': 'labels of two runs disagree', 'score': least(1.0, disagreement * 2.5),
             'holds': disagreement > {MAX_MEAN_DIFFERENCE}}},
            {{'why': 'progress jumps', 'score': jump, 'holds': jump > {MAX_JUMP}}},
            {{'why': 'a step of a moment', 'score': 0.6, 'holds': shortest_step_s < {MIN_STEP_S}}},
            {{'why': 'odd order of steps', 'score': order_rarity ^ 2 / 2, 'holds': order_rarity > {MAX_ORDER_RARITY}}},
            {{'why': 'odd length', 'score': least(0.3, abs(length_z) / 20), 'holds': abs(length_z) > {MAX_LENGTH_Z}}},
            {{'why': 'steps without a name', 'score': 0.95, 'holds': NOT named}}]) AS sign
          FROM labels),
        -- What is continuous counts below its threshold as well, so that labels are ranked by all that is known of them
        scored AS (
          SELECT dataset, episode_index, label_run,
                 round(1 - product(1 - CASE
                   WHEN sign.holds OR sign.why IN ('may be unfinished', 'the annotator is unsure')
                   THEN least(coalesce(sign.score, 0), 1.0) ELSE 0 END), 6) AS score,
                 list(sign.why ORDER BY sign.why = '{FAULTY}' DESC, sign.score DESC, sign.why) FILTER (sign.holds)
                   AS signs
          FROM signs GROUP BY ALL HAVING bool_or(sign.holds))
        SELECT dataset, episode_index, e.task, e.success, label_run, score, signs,
               CASE WHEN l.words IS NULL THEN signs ELSE list_concat(l.words[:{MOST_FAULTS}], CASE WHEN
                 len(l.words) > {MOST_FAULTS} THEN [(len(l.words) - {MOST_FAULTS}) || ' more faults'] END,
                 signs[2:]) END AS why, l.confidence, l.needs_review,
               l.length_z, l.order_rarity, l.jump, l.end_progress, l.disagreement, l.end_by, l.p_failure,
               l.failure_signs
        FROM scored
        JOIN episode_facts e USING (dataset, episode_index)
        JOIN labels l USING (dataset, episode_index, label_run)
        ORDER BY score DESC, dataset, episode_index

current_corrections: Corrections in force: the accepted label of each episode, corrections that wait for a person
    (review), and annotators' labels that must not be used (rejected)
  status: accepted, review (the episode has changed since, or it was imported for review) or rejected
        WITH said AS (
          SELECT *, true AS is_same FROM located_corrections
          UNION ALL BY NAME
          SELECT c.* REPLACE (r.dataset AS dataset, r.episode_index AS episode_index), false AS is_same
          FROM corrections c JOIN recordings r ON r.resembles = c.recording WHERE r.left_at IS NULL),
        stated AS (
          SELECT c.* EXCLUDE (status, is_same), (c.episode_index // d.chunk_size)::INTEGER AS chunk,
                 -- Of contents that the recording has, or had; one that is not decoded here yet had those that are kept
                 is_same AND (c.base_content_hash IS NOT DISTINCT FROM e.content_hash
                   OR coalesce(list_contains(e.former_hashes, c.base_content_hash), false)
                   OR e.dataset IS NULL AND coalesce(list_contains(p.content_hashes, c.base_content_hash), false))
                   AS fits,
                 CASE WHEN c.status = 'accepted' AND NOT fits THEN 'review' ELSE c.status END AS status
          FROM said c JOIN datasets d USING (dataset) LEFT JOIN episode_content e USING (dataset, episode_index)
          LEFT JOIN fingerprints p ON p.recording = c.recording
          WHERE c.rejects IS NULL AND NOT EXISTS (FROM corrections g WHERE g.rejects = c.correction_id)
            AND (c.status <> 'rejected' OR fits))
        SELECT correction_id, dataset, episode_index, chunk, status, base_label_run, base_content_hash, follows,
               author, created_at, plan, segments, comment, final_progress, catastrophic_frame
        FROM stated
        QUALIFY row_number() OVER (PARTITION BY dataset, episode_index, status,
                                   CASE WHEN status = 'rejected' THEN base_label_run END
                                   ORDER BY created_at DESC, correction_id DESC) = 1
          AND (status <> 'review' OR created_at >= coalesce(max(created_at) FILTER (status = 'accepted') OVER (
               PARTITION BY dataset, episode_index), created_at))

pending_corrections: Episodes with corrections that their labels and samples do not show yet; the next build applies
    them
  what: kind of the change: corrected, taken back or rejected
        WITH human AS (
          SELECT l.dataset, l.episode_index, l.chunk, l.correction_id
          FROM episode_labels l WHERE l.correction_id IS NOT NULL),
        accepted AS (FROM current_corrections WHERE status = 'accepted')
        SELECT coalesce(c.dataset, h.dataset) AS dataset, coalesce(c.episode_index, h.episode_index) AS episode_index,
               coalesce(c.chunk, h.chunk) AS chunk, CASE WHEN c.correction_id IS NULL THEN 'taken back' ELSE 'corrected'
               END AS what
        FROM accepted c FULL JOIN human h ON c.dataset = h.dataset AND c.episode_index = h.episode_index
        WHERE c.correction_id IS DISTINCT FROM h.correction_id
        UNION ALL
        SELECT c.dataset, c.episode_index, c.chunk, 'rejected' FROM current_corrections c
        JOIN active_runs a ON a.dataset = c.dataset AND a.episode_index = c.episode_index
          AND a.label_run = c.base_label_run
        WHERE c.status = 'rejected'

current_outcomes: Outcomes in force: the newest statement on each run that was not taken back
        SELECT o.dataset, o.episode_index, o.success, o.note, o.author, o.file, o.created_at, o.import_id, o.recording
        FROM located_outcomes o
        WHERE o.undoes IS NULL AND NOT EXISTS (FROM outcomes u WHERE u.undoes = o.import_id)
        QUALIFY row_number() OVER (PARTITION BY dataset, episode_index ORDER BY created_at DESC, import_id DESC) = 1

pending_outcomes: Episodes with stated outcomes that the corpus does not show yet; the next build applies them
        SELECT f.dataset, f.episode_index, f.chunk
        FROM episode_facts f LEFT JOIN current_outcomes o USING (dataset, episode_index)
        WHERE CASE WHEN o.import_id IS NULL THEN starts_with(f.success_source, 'person: ')
                   ELSE f.success_source IS DISTINCT FROM 'person: ' || o.file
                     OR f.success IS DISTINCT FROM o.success END

current_tags: Tags that episodes have now
  tag: the tag
        SELECT dataset, episode_index, value AS tag, author, created_at, mark_id, recording
        FROM located_episode_marks WHERE kind = 'tag'
        QUALIFY row_number() OVER (
          PARTITION BY dataset, episode_index, value ORDER BY created_at DESC, mark_id DESC) = 1 AND is_on

current_assignments: The person whom each episode is assigned to now
  person: person who should look at the episode
        SELECT dataset, episode_index, value AS person, author, created_at, mark_id, recording
        FROM located_episode_marks WHERE kind = 'assigned'
        QUALIFY row_number() OVER (
          PARTITION BY dataset, episode_index ORDER BY created_at DESC, mark_id DESC) = 1 AND is_on

words_in_review: What people said of recordings that an episode only resembles: not in force until a person decides
    whether it is that recording (proccorpus recordings same, or other)
  recording: recording of the episode
  said_of: recording that it was said of, which left the source or changed
  kind: takedown, outcome, tag, assignment, acceptance, correction or reference
  text: what was said, in short
  author: person who said so; null: not known
  why: what speaks for the same recording
        WITH said AS (
          SELECT recording, 'takedown' AS kind, reason AS text, NULL AS author, created_at FROM takedowns
          UNION ALL
          SELECT recording, 'outcome',
                 CASE WHEN success THEN 'succeeded' ELSE 'failed' END || coalesce(': ' || note, ''), author, created_at
          FROM (
            FROM outcomes o WHERE o.undoes IS NULL AND NOT EXISTS (FROM outcomes u WHERE u.undoes = o.import_id)
            QUALIFY row_number() OVER (PARTITION BY recording ORDER BY created_at DESC, import_id DESC) = 1)
          UNION ALL
          SELECT recording, CASE WHEN kind = 'tag' THEN 'tag' ELSE 'assignment' END, value, author, created_at FROM (
            FROM episode_marks QUALIFY row_number() OVER (
              PARTITION BY recording, kind, CASE WHEN kind = 'tag' THEN value END
              ORDER BY created_at DESC, mark_id DESC) = 1 AND is_on)
          UNION ALL
          SELECT recording, 'acceptance', check_name || ': ' || why, author, created_at FROM (
            FROM acceptances QUALIFY row_number() OVER (
              PARTITION BY recording, check_name ORDER BY created_at DESC, acceptance_id DESC) = 1 AND is_accepted)
          UNION ALL
          SELECT recording, 'correction', coalesce(nullif(comment, ''), 'a corrected label'), author, created_at FROM (
            FROM corrections c WHERE c.rejects IS NULL AND c.status <> 'rejected'
              AND NOT EXISTS (FROM corrections g WHERE g.rejects = c.correction_id)
            QUALIFY row_number() OVER (PARTITION BY recording ORDER BY created_at DESC, correction_id DESC) = 1)
          UNION ALL
          SELECT recording, 'reference', 'a reference of its task', author, created_at FROM (
            FROM reference_marks
            QUALIFY row_number() OVER (PARTITION BY recording ORDER BY created_at DESC, mark_id DESC) = 1
              AND is_reference))
        SELECT r.dataset, r.episode_index, r.recording, s.recording AS said_of, s.kind, s.text, s.author, s.created_at,
               r.why
        FROM said s JOIN recordings r ON r.resembles = s.recording
        WHERE r.left_at IS NULL

copies: Episodes with equal rows and length, within a dataset or in several
  episodes: dataset and number of each
        SELECT rows_hash, num_frames, list(dataset || ' ' || episode_index ORDER BY dataset, episode_index) AS episodes
        FROM episode_content WHERE rows_hash IS NOT NULL GROUP BY ALL HAVING count(*) > 1

current_joined_tasks: Task texts that people have joined, because they mean the same task
        SELECT dataset, task, same_as FROM joined_tasks
        QUALIFY row_number() OVER (PARTITION BY dataset, task ORDER BY created_at DESC, join_id DESC) = 1
          AND task <> same_as

current_references: The references of each task: runs with an accepted correction, and runs with steps of the source
    if other runs of the task have none; without those that people took away
  same_as: the text that stands for the task, if people joined several
  source: label of the reference: a correction_id, or `steps` with a hash of the source's steps
  origin: correction, native (steps of the source), import, or mark (an annotator's label, vouched for)
  author: person who said so; null: the source's own steps
  content_hash: content_hash of the episode; null: its frames are not built, so it is not used yet
        WITH marks AS MATERIALIZED (
          FROM located_reference_marks
          QUALIFY row_number() OVER (PARTITION BY dataset, episode_index ORDER BY created_at DESC, mark_id DESC) = 1),
        stated AS MATERIALIZED (FROM current_corrections WHERE status <> 'review'),
        listed AS MATERIALIZED (
          SELECT f.dataset, f.episode_index, f.chunk, f.task, coalesce(j.same_as, f.task) AS same_as, f.success,
                 f.steps_from IS NOT NULL AND len(f.steps) > 0 AS has_steps,
                 {{'from': f.steps_from, 'steps': f.steps, 'plan': f.plan}} AS given
          FROM episode_facts f
          LEFT JOIN current_joined_tasks j ON j.dataset = f.dataset AND j.task = f.task),
        mixed AS (
          SELECT dataset, same_as FROM listed WHERE same_as IS NOT NULL
          GROUP BY ALL HAVING bool_or(has_steps) AND NOT bool_and(has_steps)),
        judged AS (
          SELECT dataset, episode_index FROM stated c LEFT JOIN label_runs r ON r.label_run = c.base_label_run
          WHERE c.status = 'accepted' OR c.status = 'rejected' AND r.annotator = 'native'),
        by_source AS (
          SELECT l.dataset, l.episode_index, 'steps ' || sha256(to_json(l.given)::VARCHAR)[:16] AS source
          FROM listed l LEFT JOIN marks m USING (dataset, episode_index)
          WHERE l.has_steps AND (l.dataset, l.episode_index) NOT IN (FROM judged) AND coalesce(m.is_reference, EXISTS (
            FROM mixed x WHERE x.dataset = l.dataset AND x.same_as = l.same_as))
          -- Of many runs with steps as many as are of use, spread evenly
          WINDOW of_task AS (PARTITION BY l.dataset, l.same_as),
                 in_order AS (PARTITION BY l.dataset, l.same_as ORDER BY l.episode_index)
          QUALIFY count(*) OVER of_task <= {MOST_WITH_STEPS} OR m.is_reference
            OR row_number() OVER in_order * {MOST_WITH_STEPS} // count(*) OVER of_task
              <> (row_number() OVER in_order - 1) * {MOST_WITH_STEPS} // count(*) OVER of_task),
        vouched AS (
          SELECT c.dataset, c.episode_index, c.correction_id AS source, c.author, c.created_at, c.base_label_run
          FROM stated c WHERE c.status = 'accepted'
          UNION ALL BY NAME
          FROM by_source)
        SELECT s.dataset, l.task, l.same_as, s.episode_index, l.chunk, s.source,
               CASE WHEN starts_with(s.source, 'steps ') THEN 'native' WHEN r.annotator = 'imported' THEN 'import'
                 WHEN m.label_run = s.base_label_run AND m.created_at >= s.created_at THEN 'mark'
                 ELSE 'correction' END AS origin,
               coalesce(m.author, s.author) AS author, coalesce(m.created_at, s.created_at) AS created_at,
               l.success, e.content_hash
        FROM vouched s
        JOIN listed l USING (dataset, episode_index)
        LEFT JOIN episode_content e USING (dataset, episode_index)
        LEFT JOIN marks m USING (dataset, episode_index)
        LEFT JOIN label_runs r ON r.label_run = s.base_label_run
        WHERE coalesce(m.is_reference, true)

demonstration_quality: How well each run was demonstrated, compared with the other runs of its task, the worst first;
    needs no label
  {DEMONSTRATION_COLUMNS.strip()}
        {DEMONSTRATION_SQL.strip()}

coverage: One row per dataset: how much of it is usable and labelled
  episodes: episodes listed
  ok: usable episodes
  quarantined: unusable episodes
  outcomes_known: usable episodes with a known outcome
  assumed_complete: usable episodes labelled as complete because their outcome is unknown
  look_unfinished: episodes of unknown outcome that look failed, by their label or the task's other runs
  frames: frames of usable episodes
  labelled_frames: frames with an active progress label
  samples: number of samples
  shards: number of shards
  hours: duration of usable episodes
  labels: who made the active labels, of how many usable episodes; how many have unnamed steps
  unnamed: usable episodes whose label has steps without names: it gives progress only
        -- What several counts rest on is put together once: to join it again for each costs twice as much
        WITH listed AS MATERIALIZED (
          SELECT dataset, episode_index, num_frames, duration_s, success, status FROM episodes),
        labelled AS MATERIALIZED (
          SELECT x.dataset, x.num_frames, q.end_by = 'assumed' AS is_assumed, {UNFINISHED} AS is_unfinished,
                 NOT l.named AS is_unnamed, l.episode_index IS NOT NULL AS has_label, l.steps_from, r.annotator,
                 {follows_sql("r.annotator", label="")} AS follows
          FROM listed x JOIN active_runs USING (dataset, episode_index)
          LEFT JOIN label_quality q USING (dataset, episode_index, label_run)
          LEFT JOIN episode_labels l USING (dataset, episode_index, label_run)
          LEFT JOIN label_runs r USING (label_run)
          WHERE x.status = 'ok'),
        e AS (
          SELECT dataset, count(*) AS episodes, count(*) FILTER (status = 'ok') AS ok,
                 count(*) FILTER (status = 'quarantined') AS quarantined,
                 count(success) FILTER (status = 'ok') AS outcomes_known,
                 coalesce(sum(num_frames) FILTER (status = 'ok'), 0)::BIGINT AS frames,
                 coalesce(sum(duration_s) FILTER (status = 'ok'), 0) / 3600 AS hours
          FROM listed GROUP BY dataset),
        p AS (SELECT dataset, sum(num_frames)::BIGINT AS labelled_frames,
                     count(*) FILTER (is_assumed) AS assumed_complete,
                     count(*) FILTER (is_unfinished) AS look_unfinished,
                     nullif(count(*) FILTER (is_unnamed), 0) AS unnamed
              FROM labelled GROUP BY dataset),
        s AS (SELECT dataset, count(*) AS samples FROM samples GROUP BY dataset),
        h AS (SELECT dataset, count(*) AS shards FROM shards GROUP BY dataset),
        m AS (SELECT dataset, {made_by_sql("annotator", "steps_from", "follows")} AS maker, count(*) AS labelled
              FROM labelled WHERE has_label AND annotator IS NOT NULL GROUP BY ALL),
        o AS (SELECT dataset, maker, labelled, row_number() OVER (PARTITION BY dataset
                ORDER BY maker <> '{FROM_THE_SOURCE}', labelled DESC, maker) AS place FROM m),
        w AS (SELECT dataset, string_agg(maker || ': ' || labelled ||
                CASE WHEN place = 1 THEN ' of ' || ok || ' episodes' ELSE '' END, ', ' ORDER BY place) AS labels
              FROM o JOIN e USING (dataset) GROUP BY dataset)
        SELECT d.dataset, d.role, coalesce(episodes, 0) AS episodes, coalesce(ok, 0) AS ok,
               coalesce(quarantined, 0) AS quarantined, coalesce(outcomes_known, 0) AS outcomes_known,
               coalesce(assumed_complete, 0) AS assumed_complete, coalesce(look_unfinished, 0) AS look_unfinished,
               coalesce(frames, 0) AS frames,
               coalesce(labelled_frames, 0) AS labelled_frames, coalesce(samples, 0) AS samples,
               coalesce(shards, 0) AS shards, coalesce(hours, 0) AS hours,
               coalesce(labels, 'none') || coalesce(', ' || unnamed || ' with unnamed steps', '') AS labels,
               coalesce(unnamed, 0) AS unnamed
        FROM datasets d LEFT JOIN e USING (dataset) LEFT JOIN p USING (dataset)
        LEFT JOIN s USING (dataset) LEFT JOIN h USING (dataset) LEFT JOIN w USING (dataset)

cost_by_run: Calls, tokens and money of each label run
  calls: requests sent
  prompt_tokens: tokens of all questions
  completion_tokens: tokens of all answers
  latency_s: time summed over calls
  cost_usd: cost of all calls
        SELECT label_run, dataset, stage, count(*) AS calls, sum(prompt_tokens) AS prompt_tokens,
               sum(completion_tokens) AS completion_tokens, sum(latency_s) AS latency_s, sum(cost_usd) AS cost_usd
        FROM vlm_calls GROUP BY ALL

leaderboard: Scores of every evaluated model and baseline
  release: release whose episodes were scored
        SELECT r.benchmark, r.model, r.release, s.slice, s.metric, s.value, s.low, s.high, s.n, s.coverage,
               r.created_at, r.eval_run, s.seen_episodes
        FROM eval_scores s JOIN eval_runs r USING (eval_run)

label_agreement: Mean absolute difference of progress between every two label runs of an episode
  run_a: first label run, in alphabetical order
  run_b: second label run, in alphabetical order
  mae: mean absolute difference of progress, 0..1
        SELECT a.dataset, a.episode_index, a.label_run AS run_a, b.label_run AS run_b,
               avg(abs(a.progress - b.progress)) AS mae
        FROM progress a JOIN progress b
        ON a.dataset = b.dataset AND a.chunk = b.chunk AND a.episode_index = b.episode_index
           AND a.frame_index = b.frame_index AND a.label_run < b.label_run
        GROUP BY ALL
""")
