"""The views of the lake: SQL over its tables (core/tables). Their text is stored in each lake, and counts as schema."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class View:
    """One view; `columns` says what its own columns hold, the others are those of the tables it reads."""

    name: str
    comment: str
    sql: str
    columns: Mapping[str, str] = field(default_factory=dict)


# From where on a label is odd enough for a person to look at it
MAX_JUMP = 0.5  # change of progress within half a second
MIN_CONFIDENCE = 0.35  # as the annotator judges itself
MAX_ORDER_RARITY = 0.8  # share of the task's runs whose steps follow each other otherwise
MAX_MEAN_DIFFERENCE = 0.1  # mean difference to the progress of another label run
MAX_LENGTH_Z = 3  # robust standard deviations of the log duration from the task's median

VIEWS = (
    View(
        "episodes",
        "One row per episode: facts, decoded content and its worst finding",
        """
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
        LEFT JOIN worst w USING (dataset, episode_index)""",
        {
            "fps": "frames per second as measured by the rows' times, else as stated",
            "cameras": "that can be used, by preference",
            "duration_s": "num_frames / fps",
            "reason": "why it cannot be used; null when ok",
            "status": "ok or quarantined",
            "detail": "of the reason, in words",
        },
    ),
    View(
        "quarantine",
        "Episodes (or whole datasets) that cannot be used, each with its worst finding",
        """
        SELECT dataset, episode_index, camera, reason, detail, file FROM (
          SELECT *, row_number() OVER (PARTITION BY dataset, episode_index ORDER BY stage, reason, camera) AS nth
          FROM findings WHERE severity = 'unusable') WHERE nth = 1""",
    ),
    View(
        "active_segments",
        "Segments of each episode's active label",
        """
        SELECT s.* FROM segments s JOIN active_runs a
        ON s.dataset = a.dataset AND s.chunk = a.chunk AND s.episode_index = a.episode_index
           AND s.label_run = a.label_run""",
    ),
    View(
        "active_progress",
        "Progress of each episode's active label",
        """
        SELECT p.* FROM progress p JOIN active_runs a
        ON p.dataset = a.dataset AND p.chunk = a.chunk AND p.episode_index = a.episode_index
           AND p.label_run = a.label_run""",
    ),
    View(
        "review_queue",
        "Active labels, no person's, with a reason to look at them, the oddest first",
        f"""
        WITH apart AS (
          SELECT dataset, episode_index, label_run, max(mean_difference) AS disagreement FROM (
            SELECT dataset, episode_index, label_run, mean_difference FROM label_disagreement
            UNION ALL
            SELECT dataset, episode_index, other_run, mean_difference FROM label_disagreement) GROUP BY ALL),
        quality AS (
          SELECT dataset, episode_index, label_run, unnest([
            {{'why': 'label and source contradict each other about success',
             'score': CASE WHEN contradicts THEN 0.9 END}},
            {{'why': 'odd length',
             'score': CASE WHEN abs(length_z) > {MAX_LENGTH_Z} THEN least(1.0, abs(length_z) / 6) END}},
            {{'why': 'odd order of steps',
             'score': CASE WHEN order_rarity > {MAX_ORDER_RARITY} THEN order_rarity ^ 2 END}},
            {{'why': 'progress jumps', 'score': CASE WHEN jump > {MAX_JUMP} THEN least(1.0, jump) END}}]) AS sign
          FROM label_quality WHERE contradicts OR abs(length_z) > {MAX_LENGTH_Z}
            OR order_rarity > {MAX_ORDER_RARITY} OR jump > {MAX_JUMP}),
        labels AS (
          SELECT dataset, episode_index, label_run, unnest([
            {{'why': 'the annotator asks for a person', 'score': CASE WHEN needs_review THEN 1.0 END}},
            {{'why': 'the annotator is unsure',
             'score': CASE WHEN confidence < {MIN_CONFIDENCE} THEN 1 - confidence END}}]) AS sign
          FROM episode_labels WHERE needs_review OR confidence < {MIN_CONFIDENCE}),
        apart_signs AS (
          SELECT dataset, episode_index, label_run,
                 {{'why': 'labels of two runs disagree', 'score': least(1.0, disagreement * 2.5)}} AS sign
          FROM apart WHERE disagreement > {MAX_MEAN_DIFFERENCE}),
        queue AS (
          SELECT dataset, episode_index, label_run, max(sign.score)::DOUBLE AS score,
                 list(sign.why ORDER BY sign.score DESC, sign.why) AS why
          FROM (FROM quality UNION ALL FROM labels UNION ALL FROM apart_signs)
          JOIN active_runs a USING (dataset, episode_index, label_run)
          WHERE sign.score IS NOT NULL AND NOT starts_with(label_run, 'human/') GROUP BY ALL)
        SELECT dataset, episode_index, e.task, e.success, label_run, score, why, l.confidence, l.needs_review,
               q.length_z, q.order_rarity, q.jump, q.end_progress, x.disagreement
        FROM queue
        JOIN episode_facts e USING (dataset, episode_index)
        JOIN episode_labels l USING (dataset, episode_index, label_run)
        JOIN label_quality q USING (dataset, episode_index, label_run)
        LEFT JOIN apart x USING (dataset, episode_index, label_run)
        ORDER BY score DESC, dataset, episode_index""",
        {
            "score": "strength of its strongest reason, 0..1",
            "why": "the reasons, the strongest first",
            "disagreement": "largest mean difference to another run's progress, 0..1",
        },
    ),
    View(
        "current_corrections",
        "Of what people said of each episode, what counts: the label (accepted), what waits for a person (review), and "
        "annotators' labels that must not be used (rejected)",
        """
        WITH stated AS (
          SELECT c.* EXCLUDE (status), (c.episode_index // d.chunk_size)::INTEGER AS chunk,
                 c.base_content_hash IS NOT DISTINCT FROM e.content_hash AS fits,
                 CASE WHEN c.status = 'accepted' AND NOT fits THEN 'review' ELSE c.status END AS status
          FROM corrections c JOIN datasets d USING (dataset) LEFT JOIN episode_content e USING (dataset, episode_index)
          WHERE c.rejects IS NULL AND NOT EXISTS (FROM corrections g WHERE g.rejects = c.correction_id)
            AND (c.status <> 'rejected' OR fits))
        SELECT correction_id, dataset, episode_index, chunk, status, base_label_run, base_content_hash, follows,
               author, created_at, plan, segments, comment
        FROM stated
        QUALIFY row_number() OVER (PARTITION BY dataset, episode_index, status,
                                   CASE WHEN status = 'rejected' THEN base_label_run END
                                   ORDER BY created_at DESC, correction_id DESC) = 1
          AND (status <> 'review' OR created_at >= coalesce(max(created_at) FILTER (status = 'accepted') OVER (
               PARTITION BY dataset, episode_index), created_at))""",
        {"status": "accepted, review (its episode has other contents now, or it was imported so) or rejected"},
    ),
    View(
        "pending_corrections",
        "Episodes whose labels and samples do not show yet what people said: the next build takes it in",
        """
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
        WHERE c.status = 'rejected'""",
        {"what": "corrected, taken back or rejected"},
    ),
    View(
        "current_outcomes",
        "What people said of how each run ended, as far as it counts: the newest that was not taken back",
        """
        SELECT o.dataset, o.episode_index, o.success, o.note, o.author, o.file, o.created_at, o.import_id
        FROM outcomes o
        WHERE o.undoes IS NULL AND NOT EXISTS (FROM outcomes u WHERE u.undoes = o.import_id)
        QUALIFY row_number() OVER (PARTITION BY dataset, episode_index ORDER BY created_at DESC, import_id DESC) = 1""",
    ),
    View(
        "pending_outcomes",
        "Listed episodes that do not show yet what people said of how they ended: the next build takes it in",
        """
        SELECT f.dataset, f.episode_index, f.chunk
        FROM episode_facts f LEFT JOIN current_outcomes o USING (dataset, episode_index)
        WHERE CASE WHEN o.import_id IS NULL THEN starts_with(f.success_source, 'person: ')
                   ELSE f.success_source IS DISTINCT FROM 'person: ' || o.file
                     OR f.success IS DISTINCT FROM o.success END""",
    ),
    View(
        "coverage",
        "Per dataset: how much of it is usable and labelled",
        """
        WITH e AS (
          SELECT dataset, count(*) AS episodes, count(*) FILTER (status = 'ok') AS ok,
                 count(*) FILTER (status = 'quarantined') AS quarantined,
                 count(success) FILTER (status = 'ok') AS outcomes_known,
                 coalesce(sum(num_frames) FILTER (status = 'ok'), 0)::BIGINT AS frames,
                 coalesce(sum(duration_s) FILTER (status = 'ok'), 0) / 3600 AS hours
          FROM episodes GROUP BY dataset),
        p AS (SELECT dataset, sum(num_frames)::BIGINT AS labelled_frames FROM episodes
              JOIN active_runs USING (dataset, episode_index) WHERE status = 'ok' GROUP BY dataset),
        s AS (SELECT dataset, count(*) AS samples FROM samples GROUP BY dataset),
        h AS (SELECT dataset, count(*) AS shards FROM shards GROUP BY dataset),
        m AS (SELECT dataset, CASE WHEN l.steps_from IS NOT NULL THEN 'steps of the source'
                WHEN r.annotator = 'native' THEN 'motion' WHEN r.annotator = 'human' THEN 'people'
                ELSE r.annotator END AS maker, count(*) AS labelled
              FROM episodes JOIN active_runs USING (dataset, episode_index)
              JOIN episode_labels l USING (dataset, episode_index, label_run)
              JOIN label_runs r USING (label_run) WHERE status = 'ok' GROUP BY ALL),
        o AS (SELECT dataset, maker, labelled, row_number() OVER (PARTITION BY dataset
                ORDER BY maker <> 'steps of the source', labelled DESC, maker) AS place FROM m),
        w AS (SELECT dataset, string_agg(maker || ': ' || labelled ||
                CASE WHEN place = 1 THEN ' of ' || ok || ' episodes' ELSE '' END, ', ' ORDER BY place) AS labels
              FROM o JOIN e USING (dataset) GROUP BY dataset)
        SELECT d.dataset, d.role, coalesce(episodes, 0) AS episodes, coalesce(ok, 0) AS ok,
               coalesce(quarantined, 0) AS quarantined, coalesce(outcomes_known, 0) AS outcomes_known,
               coalesce(frames, 0) AS frames,
               coalesce(labelled_frames, 0) AS labelled_frames, coalesce(samples, 0) AS samples,
               coalesce(shards, 0) AS shards, coalesce(hours, 0) AS hours, coalesce(labels, 'none') AS labels
        FROM datasets d LEFT JOIN e USING (dataset) LEFT JOIN p USING (dataset)
        LEFT JOIN s USING (dataset) LEFT JOIN h USING (dataset) LEFT JOIN w USING (dataset)""",
        {
            "episodes": "listed",
            "ok": "usable",
            "quarantined": "not usable",
            "outcomes_known": "usable, and known whether they succeeded",
            "frames": "of usable episodes",
            "labelled_frames": "with an active progress label",
            "samples": "made",
            "shards": "written",
            "hours": "of usable episodes",
            "labels": "who made the labels that count, of how many usable episodes",
        },
    ),
    View(
        "cost_by_run",
        "Calls, tokens and money of each label run",
        """
        SELECT label_run, dataset, stage, count(*) AS calls, sum(prompt_tokens) AS prompt_tokens,
               sum(completion_tokens) AS completion_tokens, sum(latency_s) AS latency_s, sum(cost_usd) AS cost_usd
        FROM vlm_calls GROUP BY ALL""",
        {
            "calls": "sent",
            "prompt_tokens": "in all",
            "completion_tokens": "in all",
            "latency_s": "summed over calls",
            "cost_usd": "in all",
        },
    ),
    View(
        "leaderboard",
        "Every evaluated model and baseline with its scores",
        """
        SELECT r.benchmark, r.model, r.release, s.slice, s.metric, s.value, s.low, s.high, s.n, s.coverage,
               r.created_at, r.eval_run
        FROM eval_scores s JOIN eval_runs r USING (eval_run)""",
        {"release": "whose episodes were scored"},
    ),
    View(
        "label_agreement",
        "Mean absolute progress difference of every two label runs of an episode",
        """
        SELECT a.dataset, a.episode_index, a.label_run AS run_a, b.label_run AS run_b,
               avg(abs(a.progress - b.progress)) AS mae
        FROM progress a JOIN progress b
        ON a.dataset = b.dataset AND a.chunk = b.chunk AND a.episode_index = b.episode_index
           AND a.frame_index = b.frame_index AND a.label_run < b.label_run
        GROUP BY ALL""",
        {
            "run_a": "label run, the lesser name",
            "run_b": "label run, the greater name",
            "mae": "mean absolute difference of progress, 0..1",
        },
    ),
)
