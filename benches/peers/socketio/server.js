// The socket.io server that aula is measured beside: as the library's documentation starts, with a check of who
// connects. It says where it listens on its first line of output, and ends when its standard input does.
import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer } from "node:http";
import { Server } from "socket.io";

const secret = process.env.BENCH_SECRET;

function isSigned(name, signature) {
  if (typeof name !== "string" || typeof signature !== "string") return false;
  const expected = createHmac("sha256", secret).update(name).digest();
  const given = Buffer.from(signature, "hex");
  return given.length === expected.length && timingSafeEqual(given, expected);
}

const http = createServer();
const io = new Server(http);

io.use((socket, next) => {
  const { name, signature } = socket.handshake.auth;
  next(isSigned(name, signature) ? undefined : new Error("unauthorized"));
});

io.on("connection", (socket) => {
  const { room } = socket.handshake.auth;
  socket.join(room);
  socket.on("message", (body) => io.to(room).emit("message", body));
  socket.emit("joined");
});

http.listen(0, "127.0.0.1", () => console.log(`listening on http://127.0.0.1:${http.address().port}`));
process.stdin.resume().on("end", () => process.exit(0));
