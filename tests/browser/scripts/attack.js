window.tried = 0; window.read = [];
const done = () => window.tried++;
const say = answer => { window.read.push(answer.status); done(); };
const types = ["text/plain", "application/json", "application/x-www-form-urlencoded"];
for (const [url, address, body, method] of wishes) {
  for (const mode of ["no-cors", "cors"])
  for (const credentials of ["include", "omit"]) {
    fetch(address, {mode, credentials}).then(mode == "cors" ? say : done, done);
    for (const type of types) {
      const how = {method: mode == "cors" ? method : "POST", mode, credentials, body};
      fetch(url, {...how, headers: {"Content-Type": type}}).then(mode == "cors" ? say : done, done);
    }
  }
  navigator.sendBeacon(url, body);
  navigator.sendBeacon(url, new Blob([body], {type: "text/plain"}));
  const socket = new WebSocket(url.replace("http", "ws"), ["graphql-ws"]);
  socket.onopen = () => {
    window.read.push("socket");
    socket.send(JSON.stringify({type: "connection_init"}));
    socket.send(JSON.stringify({id: "1", type: "start", payload: JSON.parse(body)}));
  };
  socket.onerror = done;
}
for (const form of document.querySelectorAll("form.sent")) form.submit();
