// A label as it is edited: planned steps, and segments that tile the episode. Knows no page.
// A segment refers to its planned step itself, not to its number, so steps may come and go.

const MOST_NAME = 200;
const SAID = ["name", "start_frame", "end_frame", "kind", "completed", "pace"]; // of a segment, beside its step

export class Label {
  constructor({ plan = [], segments = [], final_progress = null, catastrophic_frame = null }) {
    this.final = final_progress; // 0..1, where the run ends; null: as the segments say
    this.lost = catastrophic_frame; // first frame at which nothing is left of what was done; null: none
    this.plan = plan.map((name) => ({ name }));
    const said = (s) => Object.fromEntries(SAID.map((name) => [name, s[name] ?? null]));
    this.segments = segments.map((s) => ({ ...said(s), step: s.kind === "step" ? (this.plan[s.step] ?? null) : null }));
  }

  // As the server takes it
  json() {
    return {
      plan: this.plan.map((p) => p.name),
      segments: this.segments.map((s) => ({ ...s, step: s.kind === "step" ? this.plan.indexOf(s.step) : null })),
      final_progress: this.final,
      catastrophic_frame: this.lost,
    };
  }

  get unreached() {
    return this.plan.filter((p) => !this.segments.some((s) => s.step === p));
  }

  // Steps of one frame: mostly a slip of the hand
  get moments() {
    return this.segments.filter((s) => s.kind === "step" && s.end_frame - s.start_frame === 1);
  }

  // Where the boundary behind segment i may be: each side keeps a frame
  limits(i) {
    return [this.segments[i].start_frame + 1, this.segments[i + 1].end_frame - 1];
  }

  move(i, frame) {
    const [low, high] = this.limits(i);
    const to = Math.min(high, Math.max(low, Math.round(frame)));
    this.segments[i].end_frame = this.segments[i + 1].start_frame = to;
    return to;
  }

  // The name of a planned step stands for it: the name of another step makes this an attempt at that one
  rename(i, name) {
    const s = this.segments[i];
    name = name.trim().slice(0, MOST_NAME);
    if (!name || name === s.name) return;
    const old = s.step;
    s.name = name;
    if (s.kind !== "step") return;
    const known = this.plan.filter((p) => p.name === name && p !== old);
    if (known.length) {
      s.step = known.find((p) => !this.segments.some((x) => x.step === p)) ?? known.at(-1);
      this.forget(old);
    } else if (this.segments.some((x) => x !== s && x.step === old)) {
      s.step = this.#planned(name, old);
    } else old.name = name;
  }

  // As an attempt at a planned step, by its number in the plan
  attempt(i, number) {
    const step = this.plan[number];
    const s = this.segments[i];
    if (!step || s.step === step) return;
    const old = s.step;
    if (s.kind !== "step") s.completed = true;
    Object.assign(s, { kind: "step", name: step.name, step });
    this.forget(old);
  }

  // The second part of a step is a step of its own until it is named like another; the parts are counted, so a part of a
  // part is no "part 2, part 2"
  split(i, frame) {
    const s = this.segments[i];
    if (frame <= s.start_frame || frame >= s.end_frame) return false;
    const second = { ...s, start_frame: frame };
    if (s.kind === "step") {
      second.name = this.#partName(s.name);
      second.step = this.#planned(second.name, s.step);
    }
    s.end_frame = frame;
    if (s.kind === "step") s.completed = true;
    this.segments.splice(i + 1, 0, second);
    return true;
  }

  // With the one behind it, whose frames it takes over
  merge(i) {
    const [s, next] = [this.segments[i], this.segments[i + 1]];
    if (!next) return;
    s.end_frame = next.end_frame;
    if (s.kind === "step" && next.step === s.step) s.completed = next.completed;
    this.segments.splice(i + 1, 1);
    this.forget(next.step);
  }

  // What is no step after all is idle time; idle times beside each other are one
  remove(i) {
    if (this.segments[i].kind === "idle") return;
    this.setKind(i, "idle");
    for (const at of [i, i - 1]) {
      const [a, b] = [this.segments[at], this.segments[at + 1]];
      if (a?.kind === "idle" && b?.kind === "idle") this.merge(at);
    }
  }

  setKind(i, kind) {
    const s = this.segments[i];
    if (s.kind === kind) return;
    const old = s.step;
    s.kind = kind;
    if (kind === "step") {
      s.name = "New step";
      s.completed = true;
      s.step = this.#planned(s.name, this.segments.slice(0, i).findLast((x) => x.step)?.step ?? null);
    } else {
      s.name = kind === "done" ? "Done" : "Between steps";
      s.completed = kind === "done";
      s.step = null;
      this.forget(old);
    }
  }

  // The mark is taken away where it stands already
  markLost(frame) {
    const last = this.segments.at(-1).end_frame - 1;
    const at = Math.min(last, Math.max(1, Math.round(frame)));
    this.lost = this.lost === at ? null : at;
  }

  plannedToo(name) {
    name = name.trim().slice(0, MOST_NAME);
    if (name) this.plan.push({ name });
  }

  #partName(name) {
    const whole = name.replace(/, part \d+$/, "").slice(0, MOST_NAME - 10);
    const taken = new Set(this.plan.map((p) => p.name));
    let number = 2;
    while (taken.has(`${whole}, part ${number}`)) number += 1;
    return `${whole}, part ${number}`;
  }

  #planned(name, after) {
    const step = { name };
    this.plan.splice(after ? this.plan.indexOf(after) + 1 : 0, 0, step);
    return step;
  }

  forget(step) {
    if (step && !this.segments.some((s) => s.step === step)) this.plan.splice(this.plan.indexOf(step), 1);
  }
}
