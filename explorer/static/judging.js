// What a person says of a label in the review queue.
import { post } from "./page.js";

// of: the data of an element: dataset, episode, follows; run, or the correction that waits. act: accept or reject
export function judge({ dataset, episode, run, correction, follows }, act) {
  const what = correction && act === "reject" ? "undo" : act;
  const about = correction ? { correction_id: correction } : { base_label_run: run };
  return post(`/api/corrections/${encodeURIComponent(dataset)}/${episode}/${what}`, { follows: follows || null, ...about });
}
