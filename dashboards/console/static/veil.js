// Media: a blurred copy until somebody asks for the clear one, and again whenever they turn away.

import { call } from "./call.js";

const IDLE_MS = 30_000;
const frame = document.querySelector("#media");
const frames = document.querySelector("#frames");
const button = document.querySelector("#reveal");

function drawn(link) {
  const picture = document.createElement("img");
  picture.addEventListener("error", () => {
    picture.dataset.broken = "This medium cannot be shown.";
    picture.alt = picture.dataset.broken;
  });
  picture.draggable = false;
  picture.src = link;
  return picture;
}

export class Veil {
  constructor(setup, failed) {
    this.setup = setup;
    this.failed = failed;
    this.job = null;
    this.open = false;
    this.turn = 0;
    this.ready = new Map();
    for (const kind of ["keydown", "pointermove", "pointerdown"]) {
      addEventListener(kind, () => this.stir(), { passive: true });
    }
    addEventListener("blur", () => this.close());
    addEventListener("pagehide", () => this.close());
    new ResizeObserver(() => this.place()).observe(frame);
    document.addEventListener("visibilitychange", () => document.hidden && this.close());
    if (setup.reveal === "hold") {
      button.addEventListener("pointerdown", () => this.reveal());
      for (const kind of ["pointerup", "pointerleave", "pointercancel"]) {
        button.addEventListener(kind, () => this.close());
      }
      for (const [kind, act] of [["keydown", () => this.reveal()], ["keyup", () => this.close()]]) {
        button.addEventListener(kind, (event) => {
          if (event.key !== " " && event.key !== "Enter") return;
          event.preventDefault();
          if (!event.repeat) act();
        });
      }
      button.addEventListener("blur", () => this.close());
    } else {
      button.addEventListener("click", () => this.press());
    }
  }

  // Blurred copies of what comes next are fetched ahead, never clear ones.
  prepare(jobs) {
    const links = jobs.flatMap((job) => job.media);
    this.ready = new Map(links.map((link) => [link, this.ready.get(link) ?? drawn(link)]));
  }

  show(job) {
    this.close();
    this.job = job;
    frame.classList.remove("zoomed");
    frame.classList.toggle("many", job.media.length > 1);
    this.draw(job.media, "blurred");
    const mild = job.weight <= 1 && !job.sealed;
    if (this.setup.blur === "severe" && mild && document.hasFocus()) this.reveal();
  }

  draw(links, how) {
    frame.classList.toggle("grey", this.setup.grey);
    if (!links.length) {
      const none = document.createElement("p");
      none.textContent = "No media: the words alone.";
      frame.replaceChildren(none);
      frames.textContent = "";
      button.hidden = true;
      return;
    }
    button.hidden = false;
    button.replaceChildren(...this.label(how));
    const pictures = links.map((link, index) => {
      const picture = this.ready.get(link) ?? drawn(link);
      picture.alt = picture.dataset.broken ?? `Medium ${index + 1} of ${links.length}, ${how}`;
      picture.addEventListener("load", () => this.place());
      return picture;
    });
    this.boxes = this.marks(pictures);
    frame.replaceChildren(...pictures, ...this.boxes.map(({ box }) => box));
    const times = this.job.evidence.filter(({ time_s }) => time_s !== null);
    frames.textContent = times.map(({ time_s }) => `Evidence at ${time_s.toFixed(1)} s`).join(", ");
    this.place();
  }

  // Where the model's reason points to: frames laid over the media, whose place follows theirs.
  marks(pictures) {
    return this.job.evidence
      .filter(({ box, time_s, media }) => box && time_s === null && pictures[media])
      .map(({ box: [left, top, right, bottom], media }) => {
        const box = document.createElement("span");
        box.className = "evidence";
        box.title = "The model's evidence";
        return { box, picture: pictures[media], left, top, right, bottom };
      });
  }

  place() {
    for (const { box, picture, left, top, right, bottom } of this.boxes ?? []) {
      box.style.left = `${picture.offsetLeft + left * picture.offsetWidth}px`;
      box.style.top = `${picture.offsetTop + top * picture.offsetHeight}px`;
      box.style.width = `${(right - left) * picture.offsetWidth}px`;
      box.style.height = `${(bottom - top) * picture.offsetHeight}px`;
      box.hidden = !picture.complete;
    }
  }

  label(how) {
    const key = document.createElement("kbd");
    key.textContent = "Space";
    const held = this.setup.reveal === "hold";
    const words = how === "clear" ? (held ? "Let go to veil " : "Veil ") : held ? "Hold to reveal " : "Reveal ";
    return [document.createTextNode(words), key];
  }

  press() {
    return this.open ? this.close() : this.reveal();
  }

  async reveal() {
    const job = this.job;
    if (!job || this.open || !job.media.length) return;
    this.open = true;
    const turn = ++this.turn;
    this.stir();
    try {
      const said = await call("/api/reveal", { job: job.job, lease: job.lease });
      if (this.open && turn === this.turn) this.draw(said.media, "clear");
      else this.stop(job);
    } catch (error) {
      this.open = false;
      this.failed(job, error);
    }
  }

  close() {
    clearTimeout(this.idle);
    if (!this.open) return;
    this.open = false;
    this.turn++;
    this.draw(this.job.media, "blurred");
    this.stop(this.job);
  }

  // What waits for its answer when the page goes is sent all the same.
  stop(job) {
    call("/api/veil", { job: job.job, lease: job.lease }, { keepalive: true }).catch(() => {});
  }

  stir() {
    clearTimeout(this.idle);
    if (this.open) this.idle = setTimeout(() => this.close(), IDLE_MS);
  }

  // Moves what is zoomed; says whether there was something to move.
  pan(key) {
    const [across, down] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key] ?? [0, 0];
    if (!frame.classList.contains("zoomed") || !(across || down)) return false;
    frame.scrollBy((across * frame.clientWidth) / 4, (down * frame.clientHeight) / 4);
    return true;
  }

  zoom() {
    frame.classList.toggle("zoomed");
    this.place();
  }
}
