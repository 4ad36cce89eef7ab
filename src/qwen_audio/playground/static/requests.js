// Requests to the server's handlers, through Gradio's queue: one at a time for each handler.
(() => {
  // A message for the visitor: why a request failed.
  class Problem extends Error {}

  const channels = {};
  const owners = new WeakMap(); // of each status line: the request that wrote it last
  const channelOf = (name) => {
    channels[name] ??= { name, waiting: [], current: null, trigger: null, props: null };
    return channels[name];
  };
  let count = 0;

  const next = (channel) => {
    if (!channel.trigger || channel.current || !channel.waiting.length) return;
    channel.current = channel.waiting.shift();
    channel.current.n = ++count;
    channel.props.value = { ...channel.current.data, n: channel.current.n };
    channel.trigger("submit");
  };
  const finish = (channel, settle) => {
    const job = channel.current;
    channel.current = null;
    if (job) {
      if (owners.get(job.status) === job) playground.setStatus(job.status);
      settle(job);
    }
    next(channel);
  };
  const fail = (job, message) => {
    if (job.isDropped) return job.resolve(null);
    if (!job.status) return job.reject(new Problem(message));
    playground.setStatus(job.status, message, "problem");
    return job.resolve(null);
  };

  // Called by the hidden components of Gradio.
  const connect = (name, trigger, props) => {
    Object.assign(channelOf(name), { trigger, props });
    next(channelOf(name));
  };
  const answered = (name, answer) => {
    const channel = channelOf(name);
    const job = channel.current;
    if (!job || !answer || answer.n !== job.n) return;
    if (answer.partial) return job.isDropped || job.onUpdate?.(answer);
    finish(channel, () => {
      if (answer.problem) fail(job, answer.problem);
      else job.resolve(job.isDropped ? null : answer);
    });
  };

  // Asks a handler; the promise is of its answer.
  //   latest: older requests to the same handler are dropped: their promises give null.
  //   onUpdate: called with each part of an answer that comes in parts.
  //   status, busy: a status line, and what it says meanwhile. A failure is shown there, and gives null;
  //     without one, the promise fails with a Problem.
  const request = (name, data = {}, { latest = false, onUpdate, status, busy = "Computing …" } = {}) => {
    const channel = channelOf(name);
    return new Promise((resolve, reject) => {
      if (latest) {
        channel.waiting.splice(0).forEach((job) => job.resolve(null));
        if (channel.current) channel.current.isDropped = true;
      }
      const job = { data, resolve, reject, onUpdate, status, busy };
      channel.waiting.push(job);
      next(channel);
      if (status) {
        playground.setStatus(status, busy, "busy");
        owners.set(status, job);
      }
    });
  };

  // Every request that waits fails: the connection is gone.
  const failAll = (message) => Object.values(channels).forEach((channel) => {
    if (channel.current) finish(channel, (job) => fail(job, message));
  });
  const failOne = (n, message) => Object.values(channels).forEach((channel) => {
    if (channel.current?.n === n) finish(channel, (job) => fail(job, message));
  });
  const jobOf = (n) => Object.values(channels).map((channel) => channel.current).find((job) => job?.n === n);

  // Gradio's own requests: refusals are reported, and so is a request's place in the queue.
  const UNREACHABLE = "The playground can't be reached: check that it is still running, and try again.";
  const [RETRY_MS, MAX_TRIES] = [50, 60];
  const numbers = new Map(); // of requests, by Gradio's event id
  // Of a request that waits: how many are before it, in the queue and being answered. null: it has begun.
  const WAITING_MS = 300; // those that begin sooner don't wait
  const showPlace = (job, others) => {
    if (!job) return;
    job.others = others;
    setTimeout(() => {
      if (!job.status || owners.get(job.status) !== job || job.status.dataset.kind !== "busy") return;
      const count = job.others === 1 ? "1 request is" : `${job.others} requests are`;
      job.status.textContent = job.others === null ? job.busy : `Waiting: ${count} before yours.`;
    }, others === null ? 0 : WAITING_MS);
  };
  const MOST_CHARACTERS = 2000; // of a message about places; longer ones are answers
  const readPlace = (line) => {
    if (!line.startsWith("data:") || line.length === MOST_CHARACTERS) return;
    const message = JSON.parse(line.slice(5));
    const job = jobOf(numbers.get(message.event_id));
    if (message.msg === "estimation") showPlace(job, message.rank + 1);
    else if (message.msg === "process_starts") showPlace(job, null);
    else if (message.msg === "process_completed") numbers.delete(message.event_id);
  };
  // The same stream, of which we read places. Gradio aborts a stream at the message that ends it: ours is
  // closed then, and the server's is read to its end, since Gradio's server takes an aborted one for a page
  // that has gone, and drops the request that this page has sent meanwhile.
  const withPlaces = (body, signal) => new ReadableStream({
    async start(controller) {
      let [line, isOpen] = ["", true]; // the beginning of the line that is being read
      const close = () => { if (isOpen) controller.close(); isOpen = false; };
      signal?.addEventListener("abort", close);
      const [reader, decoder] = [body.getReader(), new TextDecoder()];
      const read = async () => {
        for (;;) {
          const { done, value } = await reader.read();
          if (done) return close();
          if (isOpen) controller.enqueue(value);
          const [first, ...others] = decoder.decode(value, { stream: true }).split("\n");
          line = (line + first).slice(0, MOST_CHARACTERS);
          for (const next of others) {
            readPlace(line);
            line = next.slice(0, MOST_CHARACTERS);
          }
        }
      };
      read().catch((error) => {
        if (!isOpen) return;
        isOpen = false;
        failAll(UNREACHABLE);
        controller.error(error);
      });
    },
  });
  const originalFetch = window.fetch;
  window.fetch = async (...args) => {
    const url = String(args[0]?.url ?? args[0]);
    if (url.includes("/queue/data")) {
      const { headers, signal } = args[0];
      let answer = await originalFetch(url, { headers });
      // The stream before has brought all results already. Gradio would take that for a broken connection.
      for (let tries = 0; answer.status === 404; tries += 1) {
        const isWaiting = Object.values(channels).some((channel) => channel.current);
        if (isWaiting && tries === MAX_TRIES) failAll(UNREACHABLE);
        if (!isWaiting || tries === MAX_TRIES) return new Response('data: {"msg": "close_stream"}\n\n');
        await new Promise((resolve) => { setTimeout(resolve, RETRY_MS); });
        answer = await originalFetch(url, { headers });
      }
      if (!answer.ok || !answer.body) return answer;
      return new Response(withPlaces(answer.body, signal), { status: answer.status, headers: answer.headers });
    }
    if (!url.includes("/queue/join")) return originalFetch(...args);
    const n = JSON.parse(args[1].body).data?.[0]?.n;
    let answer;
    try {
      answer = await originalFetch(...args);
    } catch (error) {
      failOne(n, UNREACHABLE);
      throw error;
    }
    if (answer.ok) answer.clone().json().then(({ event_id }) => numbers.set(event_id, n));
    else if (answer.status === 503) failOne(n, "Too many requests are waiting: try again in a few seconds.");
    else failOne(n, "The request was refused: reload the page and try again.");
    return answer;
  };

  // Uploads a file; gives the ticket that opens it once, or null after a problem was shown.
  const upload = async (body, name, status) => {
    const { maxBytes, maxBytesText } = playground.facts;
    if (body.size > maxBytes) {
      playground.setStatus(status, `${name} is larger than ${maxBytesText}: choose a shorter one.`, "problem");
      return null;
    }
    playground.setStatus(status, `Uploading ${name} …`, "busy");
    try {
      const answer = await originalFetch(`clip?name=${encodeURIComponent(name)}`, { method: "POST", body });
      const { ticket, problem } = await answer.json();
      playground.setStatus(status, problem ?? "", problem ? "problem" : "");
      return ticket ?? null;
    } catch {
      playground.setStatus(status, "The upload failed: the connection broke, or the file is larger than the " +
        "server accepts.", "problem");
      return null;
    }
  };

  Object.assign(playground, { Problem, answered, connect, request, upload });
})();
