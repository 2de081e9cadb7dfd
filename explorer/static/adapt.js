// "Adapt a model from this episode": choose a model, see the command, start it where that is allowed, watch its log.
import { element, get, post } from "./page.js";

export function adaptPanel(details, episode) {
  const url = `/api/adapt/${encodeURIComponent(episode.dataset)}/${episode.episode_index}`;
  const box = details.querySelector("div");
  details.addEventListener("toggle", () => details.open && !box.childElementCount && build());

  async function build() {
    const { ok, data: told } = await get(url);
    const none = ok && !told.models.length ? "The corpus has no trained model yet: proccorpus train makes one." : told.error;
    if (none) return void (box.textContent = none);
    const model = element("select", {}, ...told.models.map((m) => new Option(m, m)));
    const recipe = element("input", { placeholder: "default for the model", maxLength: 80 });
    const code = element("code", { tabIndex: 0 });
    const start = element("button", { type: "button", textContent: "Start it here" });
    const state = element("p", { role: "status" });
    const log = element("pre", { tabIndex: 0, hidden: true, ariaLabel: "Log" });
    const write = () => {
      const command = told.command.replace("MODEL", model.value);
      code.textContent = recipe.value ? command.replace("RECIPE", recipe.value) : command.replace(/ --recipe=\S+/, "");
    };
    const show = (job) => {
      if (!job.about) return;
      const how = job.running ? "is running" : job.exit_code === 0 ? "is done" : `ended with exit code ${job.exit_code}`;
      state.textContent = `Adapting ${job.about} ${how}.`;
      log.textContent = job.log;
      log.hidden = !job.log;
      start.disabled = job.running;
      if (job.running) setTimeout(async () => show((await get(url)).data.job ?? job), 1000);
    };
    model.addEventListener("change", write);
    recipe.addEventListener("input", write);
    start.addEventListener("click", async () => {
      const { ok, data } = await post(url, { model: model.value, recipe: recipe.value });
      if (ok) show(data.job);
      else state.textContent = data.error;
    });
    start.disabled = Boolean(told.why_not);
    if (told.why_not) state.textContent = `You cannot start it here: ${told.why_not}.`;
    box.append(
      element("p", {}, "The model learns from the active label of the last build."),
      element("div", { className: "editor-form" }, element("label", {}, "Model ", model), element("label", {}, "Recipe ", recipe), start),
      element("p", {}, code),
      state,
      log,
    );
    write();
    show(told.job);
  }
}
