// A request as it happens: text from the stream of events, everything else as parts that the server renders anew when
// something has happened. What a reader has opened stays open.

import { listen, part, post, replace, toast } from "./calls.js";
import { refreshTimes } from "./time.js";

const main = document.getElementById("main"), sheet = document.getElementById("sheet");
const live = document.getElementById("live"), dialog = document.getElementById("cancel");
const address = `/requests/${encodeURIComponent(main.dataset.id)}`;
const GATHER = 120; // milliseconds in which several events lead to one look

let written = ""; // the text so far
let timer = 0;

const isFinal = () => sheet.querySelector(".sheet")?.dataset.final === "true";

async function refresh() {
  timer = 0;
  let fresh;
  try {
    fresh = await part(`${address}?part=sheet`);
  } catch {
    return paused(true);
  }
  if (fresh.status === 401) return;
  if (fresh.status >= 500) return paused(true);
  if (told(fresh.nodes) === told([...sheet.childNodes])) return; // nothing moves under a reader's pointer for nothing
  const opened = [...sheet.querySelectorAll("details[id][open]")].map((details) => details.id);
  const focused = document.activeElement?.id;
  replace(sheet, fresh);
  for (const id of opened) document.getElementById(id)?.setAttribute("open", "");
  if (focused) document.getElementById(focused)?.focus();
  show();
  refreshTimes(sheet);
  const status = sheet.querySelector(".sheet")?.dataset.status;
  if (status) document.title = `${sheet.querySelector("h1").textContent} · ${status} · Holdfast`;
  if (isFinal()) {
    live?.remove();
    dialog?.close();
  }
}

/** What a sheet says, apart from what changes in the browser: the time that has passed, what is open, the stream. */
function told(nodes) {
  const box = document.createElement("div");
  box.append(...nodes.map((node) => node.cloneNode(true)));
  for (const time of box.querySelectorAll("time")) time.replaceWith(time.dateTime);
  for (const details of box.querySelectorAll("details")) details.open = false;
  box.querySelector("#stream")?.replaceChildren();
  box.querySelector("#stream")?.removeAttribute("hidden");
  return box.innerHTML.trim();
}

function soon() {
  timer ||= setTimeout(refresh, GATHER);
}

function show() {
  const text = document.getElementById("text");
  if (!text) return;
  text.textContent = written;
  document.getElementById("stream").hidden = !written;
}

function paused(is) {
  if (!live) return;
  live.classList.toggle("off", is);
  live.textContent = is ? "paused" : "live";
  if (is) setTimeout(soon, 3000);
}

if (!isFinal()) {
  const stop = listen(`${address}/events`, (events) => {
    const forget = () => {
      written = "";
      show();
    };
    forget(); // a stream that is opened anew tells everything again
    events.addEventListener("open", () => paused(false));
    events.addEventListener("error", () => paused(true));
    for (const kind of ["step", "tool", "approval"]) events.addEventListener(kind, soon);
    events.addEventListener("text", (event) => {
      written += JSON.parse(event.data).text;
      show();
    });
    events.addEventListener("restart", forget);
    events.addEventListener("done", () => {
      stop();
      written = "";
      soon();
    });
  });
}

document.addEventListener("click", async (event) => {
  const cite = event.target.closest(".cite[href]");
  if (cite) document.getElementById(cite.hash.slice(1))?.setAttribute("open", "");
  if (event.target.closest("#cancel-open")) dialog.showModal();
  const sure = event.target.closest("[data-cancel]");
  if (!sure) return;
  const place = dialog.querySelector(".problem");
  place.hidden = true;
  sure.disabled = true;
  try {
    await post(`${address}/cancel`, {});
    dialog.close();
    toast("It has been told to stop.");
    soon();
  } catch (refused) {
    if (!refused.problem) throw refused;
    place.hidden = false;
    place.textContent = `${refused.problem.detail} ${refused.problem.remedy}`;
  } finally {
    sure.disabled = false;
  }
});
