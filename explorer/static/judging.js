// What a person says of a label in the review queue, and who says it.
import { post } from "./request.js";

// The name that judgements go by: the proxy's where it is known, else the one that was last given in this browser
export const reviewer = (known, otherwise) => (known ? otherwise : (localStorage.getItem("author") ?? otherwise));

// of: the data of an element: dataset, episode, follows; run, or the correction that waits. act: accept or reject
export function judge({ dataset, episode, run, correction, follows }, act, author) {
  const url = `/api/corrections/${encodeURIComponent(dataset)}/${episode}`;
  const what = correction && act === "reject" ? "undo" : act;
  const about = correction ? { correction_id: correction } : { base_label_run: run };
  return post(`${url}/${what}`, { author, follows: follows || null, ...about });
}
