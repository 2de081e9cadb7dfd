async video => {
  video.muted = true; video.controls = false;
  const times = [];
  video.ontimeupdate = () => times.push(video.currentTime);
  const ended = new Promise((done, fail) => { video.onended = done; video.onerror = () => fail(video.error.message); });
  await video.play();
  await ended;
  return {times, duration: video.duration, size: [video.videoWidth, video.videoHeight]};
}
