"""Videos by ranges and pictures: what the lake lists, and nothing else."""

import os
import shutil
from collections.abc import Callable

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient

from core.paths import Workspace
from explorer import media
from explorer.access import CorpusView, PageError
from explorer.episode import episode_facts
from explorer.media import playable_video
from ingest.media.curve_panel import GROUND_PX, LEFT_PX, MARK, PANEL_PX, RIGHT_PX, TOP_PX
from ingest.media.video import decode
from ingest.reasons import LIMITS
from pipeline.build import run_build
from pipeline.config import source_build
from tests.kits.explorer_kit import UNLABELLED, copy_furnished
from tests.kits.lake_kit import change as change_lake
from tests.kits.lerobot_writer import (
    FRONT,
    edit_parquet,
    numbers,
    read_number,
    v3_data,
    v3_meta,
    v3_video,
    write_v3,
    write_video,
)
from tests.kits.made_corpus import Made
from tests.kits.tiny_lerobot import LENGTHS, video_path
from tests.kits.visitor import picture, visit

VIDEO = "/media/tiny/0/video/0"


@pytest.fixture
def changed(furnished: Workspace, made: Made, tmp_path) -> Callable[..., TestClient]:
    """A client of a furnished copy with one change in its lake."""

    def change(sql: str, *values: object) -> TestClient:
        space = copy_furnished(furnished, made, tmp_path)
        change_lake(space, sql, *values)
        return visit(space)

    return change


OTHER_VIDEO = """
    UPDATE episode_facts SET videos = [{camera: 'observation.images.front', uri: ?, start_frame: 0}]
    WHERE episode_index = 0"""


@pytest.mark.parametrize("uri", ["../outside.mp4", "link.mp4", "/absolute.mp4"])
def test_a_listed_path_that_leads_out_is_refused(changed, made, tmp_path, uri):
    outside_file = tmp_path / "outside.mp4"
    shutil.copy(video_path(made.source, 0), outside_file)
    client = changed(OTHER_VIDEO, str(outside_file) if uri.startswith("/") else uri)
    (tmp_path / "source" / "link.mp4").symlink_to(outside_file)
    answer = client.get(VIDEO)
    assert (answer.status_code, "points outside" in answer.text) == (403, True)


def test_a_listed_file_that_is_no_video_is_not_served(changed):
    answer = changed(OTHER_VIDEO, "meta/info.json").get(VIDEO)
    assert (answer.status_code, "is no video" in answer.text) == (404, True)


def test_thumbnails_and_contact_sheets(client):
    thumb, sheet = (picture(client, f"/media/tiny/0/{kind}.jpg") for kind in ("thumb", "sheet"))
    assert thumb.shape[:2] == (180, 240)
    assert sheet.shape[0] == 120
    assert sheet.shape[1] > sheet.shape[0]


def test_without_stored_pictures_the_first_frame_is_decoded(changed):
    client = changed("DELETE FROM keyframes")
    assert picture(client, "/media/tiny/1/thumb.jpg").shape[:2] == (180, 240)
    assert picture(client, "/media/tiny/1/sheet.jpg").shape[:2] == (120, 160)
    change_lake(client.app.state.explorer.space, "UPDATE episode_facts SET videos = []")  # type: ignore[attr-defined]
    answer = client.get("/media/tiny/1/thumb.jpg")
    is_said = "no picture of this episode is stored" in answer.text
    assert (answer.status_code, is_said) == (404, True)


def test_pictures_are_decoded_within_the_limits_of_their_dataset(changed):
    client = changed("DELETE FROM keyframes")
    space, small = client.app.state.explorer.space, '{"dataset": {"limits": {"max_pixels": 10}}}'  # type: ignore[attr-defined]
    change_lake(
        space, f"UPDATE build_configs SET config = json_merge_patch(config, '{small}')::VARCHAR"
    )
    for url in ("/media/tiny/1/thumb.jpg", "/media/tiny/1/video/0/h264"):
        answer = client.get(url)
        assert (answer.status_code, "limits.max_pixels" in answer.text) == (404, True), answer.text


def test_a_video_is_converted_once_frame_for_frame(furnished, made, tmp_path):
    space = copy_furnished(furnished, made, tmp_path / "w")
    url = "/media/tiny/1/video/0/h264"
    with visit(space) as client:
        whole = client.get(url)
        assert (whole.status_code, whole.headers["content-type"]) == (200, "video/mp4")
        assert client.get(url, headers={"Range": "bytes=0-9"}).content == whole.content[:10]
        assert client.get("/media/tiny/1/video/7/h264").status_code == 404
    (cached_video,) = (space.root / "explorer" / "videos").iterdir()
    with av.open(str(cached_video)) as video:
        stream = video.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        decoded_frames = [f.to_ndarray(format="rgb24").astype(int) for f in video.decode(video=0)]
    with av.open(str(video_path(made.source, 1))) as video:
        real = [f.to_ndarray(format="rgb24").astype(int) for f in video.decode(video=0)]
    assert len(decoded_frames) == LENGTHS[1]
    for k in (0, 7, LENGTHS[1] - 1):
        assert (
            min(range(len(real)), key=lambda n: float(np.abs(real[n] - decoded_frames[k]).mean()))
            == k
        )


def test_a_conversion_that_nobody_waits_for_leaves_nothing(furnished):
    corpus = CorpusView(furnished)
    with corpus.reading() as reader:
        facts = episode_facts(reader, "tiny", 2)
    videos = furnished.root / "explorer/videos"
    files = set(videos.glob("*"))
    with pytest.raises(PageError, match="nobody waits"):
        playable_video(furnished, facts, 0, LIMITS, lambda: True)
    assert set(videos.glob("*")) == files


def test_kept_videos_are_within_their_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(media, "KEPT_BYTES", 25)
    for k in range(4):
        (tmp_path / f"{k}.mp4").write_bytes(b"0" * 10)
        os.utime(tmp_path / f"{k}.mp4", (k, k))
    media.forget_oldest(tmp_path / "3.mp4")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["2.mp4", "3.mp4"]


def test_a_video_whose_rows_leave_out_pictures_is_played_as_its_rows_are(tmp_path):
    """Pictures 0 to 2 and 8 to 10 of the second run of a file have no row."""
    source = write_v3(tmp_path / "source", [16, 18, 14])
    shown_numbers = numbers((16, 18, 14))
    write_video(v3_video(source, FRONT, 0), shown_numbers, options={"g": "2", "crf": "12"})
    frames_left = [k for k in range(3, 18) if not 8 <= k < 11]
    rows = pq.ParquetFile(v3_data(source, 0)).read()
    pq.write_table(rows.take([*range(16), *(16 + k for k in frames_left)]), v3_data(source, 0))
    edit_parquet(v3_meta(source), length=[16, len(frames_left), 14])
    space = Workspace(tmp_path / "workspace")
    assert not run_build(space, [source_build(source, "cut", None, None)], workers=1).failed

    def video_of(episode: int) -> str:
        data = client.get(f"/api/episode/cut/{episode}").json()
        return next(c["video"]["url"] for c in data["cameras"] if c["camera"] == FRONT)

    with visit(space) as client:
        assert [client.get(f"{video_of(episode)}/in_order").json() for episode in (0, 1)] == [
            True,
            False,
        ]
        (tmp_path / "converted.mp4").write_bytes(client.get(f"{video_of(1)}/h264").content)
        small = [
            picture(client, f"/media/cut/1/frames/{k}.jpg?camera={FRONT}")
            for k in range(len(frames_left))
        ]
    assert [
        read_number(frame.luma()) & 63 for frame in decode(tmp_path / "converted.mp4")
    ] == frames_left
    assert [read_number(small_frame.mean(axis=2)) & 63 for small_frame in small] == frames_left


def test_a_video_with_its_label_has_the_curve_and_the_moment_below_the_pictures(client, tmp_path):
    answer = client.get("/media/tiny/0/labelled/0")
    assert answer.status_code == 200
    assert (
        answer.headers["content-disposition"] == 'attachment; filename="tiny-000000-labelled.mp4"'
    )
    (tmp_path / "labelled.mp4").write_bytes(answer.content)
    with av.open(str(tmp_path / "labelled.mp4")) as video:
        frames = [frame.to_ndarray(format="rgb24").astype(int) for frame in video.decode(video=0)]
    assert len(frames) == LENGTHS[0]
    for k in (0, len(frames) // 2, len(frames) - 1):
        curve = frames[k][-PANEL_PX:][TOP_PX - 4 : GROUND_PX + 5]
        is_mark = np.abs(curve - MARK).max(axis=2) < 40
        width = curve.shape[1] - LEFT_PX - RIGHT_PX
        assert is_mark.any()
        assert abs(np.nonzero(is_mark)[1].mean() - LEFT_PX - width * k / (len(frames) - 1)) <= 3
        assert frames[k][:-PANEL_PX].std() > 5  # the picture itself stands above
    assert client.get(f"/media/tiny/{UNLABELLED}/labelled/0").status_code == 404
    assert "/media/tiny/0/labelled/0" in client.get("/episode/tiny/0").text
