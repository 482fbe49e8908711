/* Search without a server: browsers refuse web workers on file:// pages, so a hidden frame takes their place. */
if (location.protocol === "file:") {
  /* Load scripts one after another; the search worker waits for them. */
  const load = (frame, url) =>
    new Promise((resolve, reject) => {
      const script = frame.contentDocument.createElement("script");
      script.src = url;
      script.onload = resolve;
      script.onerror = reject;
      frame.contentDocument.head.append(script);
    });

  class IFrameWorker extends EventTarget {
    constructor(url) {
      super();
      this.url = new URL(url, location.href).href;
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      const scope = this.frame.contentWindow;
      scope.IFrameWorker = IFrameWorker;
      scope.importScripts = (...urls) =>
        urls.reduce((before, each) => before.then(() => load(this.frame, new URL(each, this.url).href)), Promise.resolve());
      scope.postMessage = (data) => {
        const event = new MessageEvent("message", { data });
        this.dispatchEvent(event);
        if (this.onmessage) this.onmessage(event);
      };
      this.ready = load(this.frame, this.url).catch((error) => this.dispatchEvent(new ErrorEvent("error", { error })));
    }
    postMessage(data) {
      this.ready.then(() => this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data })));
    }
    terminate() {
      this.frame.remove();
    }
  }
  window.IFrameWorker = IFrameWorker;
  window.Worker = IFrameWorker;
}
