// One audio element plays all clips of the page; the players in it are views that come and go.
// A finished clip is a file to the element. One that still grows is fetched as 16-bit samples and
// handed to it through Web Audio: given the growing file, browsers wait for seconds of sound first.
(() => {
  const RATE = 44100;
  const LEAD_S = 0.06; // between a block's arrival and its sound, where nothing plays yet
  const audio = Object.assign(document.createElement("audio"), { id: "echo-audio", preload: "auto" });
  const begun = new Set(); // live clips that were started by themselves
  let current = null; // data-src of the player that plays or played last
  let live = null; // the Live of it, while it is one
  let context = null;

  class Live {
    constructor(src) {
      this.sink = context.createMediaStreamDestination();
      this.parts = []; // [when it begins by the context's clock, where in the clip, how long]
      this.sources = [];
      this.total = 0;
      this.done = this.stopped = false;
      this.abort = new AbortController();
      this.read(src).catch((error) => { if (!this.stopped) console.warn(error); }).finally(() => { this.done = true; });
    }
    async read(src) {
      const reader = (await fetch(src, { signal: this.abort.signal })).body.getReader();
      let rest = new Uint8Array(0);
      for (;;) {
        const { value, done } = await reader.read();
        if (done || this.stopped) return;
        const bytes = new Uint8Array(rest.length + value.length);
        bytes.set(rest); bytes.set(value, rest.length);
        const whole = bytes.length & ~1;
        rest = bytes.slice(whole);
        if (whole) this.add(new Int16Array(bytes.buffer.slice(0, whole)));
      }
    }
    add(samples) {
      const buffer = context.createBuffer(1, samples.length, RATE);
      buffer.getChannelData(0).set(Float32Array.from(samples, (each) => each / 32768));
      const source = new AudioBufferSourceNode(context, { buffer });
      source.connect(this.sink);
      const last = this.parts.at(-1);
      const free = last ? last[0] + last[2] : 0;
      const at = Math.max(free, context.currentTime + (free > context.currentTime ? 0 : LEAD_S));
      source.start(at);
      this.sources.push(source);
      this.parts.push([at, this.total, buffer.duration]);
      this.total += buffer.duration;
    }
    get position() {
      const now = context.currentTime;
      const heard = this.parts.filter(([at]) => at <= now).at(-1);
      return heard ? heard[1] + Math.min(now - heard[0], heard[2]) : 0;
    }
    get ended() { return this.done && this.position >= this.total - 0.01; }
    stop() {
      this.stopped = true;
      this.abort.abort();
      for (const source of this.sources) source.stop();
    }
  }

  const clock = (s) => `${Math.floor(s / 60)}:${String(Math.floor(s % 60)).padStart(2, "0")}`;
  const players = () => document.querySelectorAll(".player[data-src]");
  const isPlaying = () => !audio.paused && (live ? !live.ended : !audio.ended);

  function show() {
    for (const p of players()) {
      const mine = p.dataset.src === current;
      const playing = mine && isPlaying();
      const total = Number(p.dataset.seconds);
      const at = mine ? Math.min(live ? live.position : audio.currentTime, total) : 0;
      p.classList.toggle("playing", playing);
      p.style.setProperty("--played", total ? `${(100 * at) / total}%` : "0%");
      const button = p.querySelector(".play");
      const label = button.getAttribute("aria-label").replace(/^\w+/, playing ? "Pause" : "Play");
      if (button.getAttribute("aria-label") !== label) button.setAttribute("aria-label", label);
      p.querySelector(".seek").value = total ? (1000 * at) / total : 0;
      const time = at ? `${clock(at)} / ${clock(total)}` : clock(total);
      const shown = p.querySelector(".time");
      if (shown.textContent !== time) shown.textContent = time; // else the observer wakes us for ever
    }
  }

  function silence() {
    live?.stop();
    live = null;
    audio.srcObject = null;
    audio.removeAttribute("src");
    current = null;
  }

  function start() {
    context?.resume();
    audio.play().catch((error) => {
      if (error.name !== "NotAllowedError" && error.name !== "AbortError") console.warn(error);
    }).finally(show); // not allowed: the visitor presses play
  }

  function play(p, from) {
    const { src, final } = p.dataset;
    const again = current !== src || (live ? live.ended || (final && from !== undefined) : audio.error);
    if (again) {
      silence();
      current = src;
      if (final) {
        audio.src = final;
      } else {
        context ??= new AudioContext({ sampleRate: RATE });
        live = new Live(src);
        audio.srcObject = live.sink.stream;
      }
    }
    if (from !== undefined && !live) audio.currentTime = from;
    start();
  }

  function pause() {
    audio.pause();
    if (live) context.suspend();
    show();
  }

  function startLive() {
    for (const p of players()) {
      const token = p.dataset.live;
      if (token && !begun.has(token) && p.offsetParent) {
        begun.add(token);
        play(p);
      }
    }
    show();
  }

  async function copy(button, text) {
    let done = true;
    try {
      await navigator.clipboard.writeText(text);
    } catch { // not over plain http from another machine
      const area = Object.assign(document.createElement("textarea"), { value: text });
      document.body.append(area);
      area.select();
      done = document.execCommand("copy");
      area.remove();
    }
    const label = button.textContent;
    button.textContent = done ? "Copied" : "Not allowed";
    setTimeout(() => { button.textContent = label; }, 1200);
  }

  window.echoLink = (query) => {
    const url = new URL(location.href);
    const theme = url.searchParams.get("__theme");
    url.search = query + (theme ? `&__theme=${theme}` : "");
    history.replaceState(null, "", url);
    copy(document.querySelector("#link"), url.href);
  };
  window.echoLost = () => {
    const stage = document.querySelector('.stage[data-state="busy"]');
    if (!stage) return;
    stage.dataset.state = "error";
    stage.querySelector("#status").textContent = "The connection to the server is lost; reload the page when it is back.";
    stage.querySelector(".left").textContent = "";
  };
  window.echoTheme = () => document.body.classList.toggle("dark");

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const p = button.closest(".player");
    if (button.classList.contains("play") && p) {
      if (p.dataset.src === current && isPlaying()) pause();
      else play(p);
    } else if (button.dataset.copy) {
      copy(button, button.dataset.copy);
    } else if (["speak", "listen", "compare"].includes(button.id)) {
      // Within the click, so that browsers let us play when the sound comes.
      context ??= new AudioContext({ sampleRate: RATE });
      silence();
      context.resume();
      show();
    } else if (button.id === "stop" || button.id === "compare-stop") {
      pause();
    }
  }, true);

  document.addEventListener("input", (event) => {
    const p = event.target.closest(".player");
    if (!p || !event.target.classList.contains("seek")) return;
    if (p.dataset.final) play(p, (event.target.value / 1000) * Number(p.dataset.seconds));
    else show();
  });

  document.addEventListener("keydown", (event) => {
    const press = (id) => { document.querySelector(`#${id}`)?.click(); event.preventDefault(); };
    // Gradio leaves a list open that the keyboard has left, and Tab would walk into it.
    if (event.key === "Tab" && event.target.getAttribute?.("role") === "combobox") {
      event.target.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", bubbles: true }));
    }
    if (!event.isTrusted) return;
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) press("speak");
    else if (event.key === "Escape" && document.querySelector('.stage[data-state="busy"]')) press("stop");
  });

  for (const name of ["play", "pause", "ended", "timeupdate", "durationchange", "seeked"]) {
    audio.addEventListener(name, show);
  }
  // Gradio changes the elements that are there where it can, so attributes are watched, too.
  new MutationObserver(startLive).observe(document.documentElement, {
    childList: true, subtree: true, attributes: true, attributeFilter: ["data-src", "data-live"],
  });
  document.addEventListener("DOMContentLoaded", () => document.body.append(audio));
  if (document.body) document.body.append(audio);
})();
