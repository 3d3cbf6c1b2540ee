// Preloaded into a server that would listen on every address: it listens on 127.0.0.1 alone, and says where.
const net = require("node:net");
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (port, ...rest) {
  this.once("listening", () => process.stderr.write(`loopback ${this.address().port}\n`));
  const callback = rest.find((argument) => typeof argument === "function");
  return listen.call(this, { port: Number(port), host: "127.0.0.1" }, callback);
};
