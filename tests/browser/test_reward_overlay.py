"""The video that `reward --overlay` writes plays in a browser, with the picture above and the curve below."""

import io
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser

from eval.reward.open import ScorerConfig
from eval.reward.overlay import LABEL, LINE, PANEL_PX, STEPS
from pipeline.episode_rewards import episode_clip
from pipeline.rewards import score_video
from tests.kits.made_corpus import Made
from tests.kits.reward_kit import bars, write_video

pytestmark = pytest.mark.browser
PLAYED = """async video => {
  video.controls = false; video.muted = true;
  const times = [];
  video.ontimeupdate = () => times.push(video.currentTime);
  const ended = new Promise((done, fail) => { video.onended = done; video.onerror = () => fail(video.error.message); });
  await video.play();
  await ended;
  return {times, duration: video.duration, frames: video.getVideoPlaybackQuality().totalVideoFrames,
          size: [video.videoWidth, video.videoHeight]};
}"""


def near(rgb: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Where a picture has a colour, as far as yuv420p keeps it: bool [h, w]."""
    return np.abs(rgb.astype(int) - colour).max(-1) < 40


def test_the_overlay_plays_and_shows_picture_and_curve(browser: Browser, tmp_path: Path):
    video, overlay = write_video(tmp_path / "run.mp4", bars(15)), tmp_path / "overlay.mp4"
    score_video(ScorerConfig(baseline="clock"), {"camera": video}, "go", tmp_path / "rows.jsonl", overlay=overlay)
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(overlay.as_uri())
        played = page.locator("video").evaluate(PLAYED)
        shot = page.locator("video").screenshot()
    assert played["times"] == sorted(played["times"])
    assert played["times"][-1] == pytest.approx(played["duration"]) == pytest.approx(1.5)
    assert len(set(played["times"])) > 1
    assert played["frames"] > 1
    assert played["size"] == [320, 240 + PANEL_PX]
    shown = np.asarray(Image.open(io.BytesIO(shot)).convert("RGB"))
    assert shown.shape == (240 + PANEL_PX, 320, 3)
    assert near(shown[:230], (30, 120, 220)).mean() > 0.9  # at its end the bar fills the picture
    curve = near(shown[270:], LINE)
    assert curve.any(0)[32:300].mean() > 0.9, "the curve goes from the panel's left to its right"
    left, right = (np.flatnonzero(curve[:, at].any(1)).mean() for at in (slice(32, 60), slice(270, 295)))
    assert left - right > 50, "and rises"


def test_of_an_episode_the_label_is_drawn_too(made: Made, tmp_path: Path):
    """Its whole curve and its steps, from the first frame on; the model's curve only up to the frame that is shown."""
    overlay = tmp_path / "overlay.mp4"
    run, task = episode_clip(made.space, "tiny", 2)
    score_video(ScorerConfig(baseline="clock"), run, task, tmp_path / "rows.jsonl", overlay=overlay)
    with av.open(str(overlay)) as video:
        first, *_, last = (frame.to_ndarray(format="rgb24")[-PANEL_PX + 30 :, 32:] for frame in video.decode(video=0))
    assert near(first, LABEL).any(0).mean() > 0.9
    assert not near(first, LINE)[:, 40:].any()
    assert near(last, LINE).any(0).mean() > 0.9
    assert all(near(first, colour).any() for colour in STEPS)
