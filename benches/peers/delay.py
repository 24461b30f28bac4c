#!/usr/bin/env python3
"""Forwards connections to a port of this machine as if it were far away.

    delay.py PORT MILLISECONDS

Prints the port that it listens at. What is sent arrives half of the MILLISECONDS later, in each direction, and a
connection costs one round trip before its first byte. Bandwidth is not limited and TCP's slow start is not imitated.
A process of its own: threads of the caller would share one interpreter with it.
"""
import queue, socket, sys, threading, time

BLOCK_BYTES = 1 << 18
# In flight per direction: 10 ms of 1.6 GB/s.
BLOCKS_MAX = 64


def pump(source, sink, delay, not_before):
    flight = queue.Queue(BLOCKS_MAX)
    threading.Thread(target=deliver, args=(flight, sink), daemon=True).start()
    data = b"."
    while data:
        try:
            data = source.recv(BLOCK_BYTES)
        except OSError:
            data = b""
        flight.put((max(time.monotonic(), not_before) + delay, data))


def deliver(flight, sink):
    data = b"."
    while data:
        due, data = flight.get()
        time.sleep(max(0.0, due - time.monotonic()))
        try:
            sink.sendall(data) if data else sink.shutdown(socket.SHUT_WR)
        except OSError:
            # Nobody reads any more. Keeps taking, so that `pump` gets to its end.
            pass


def main(port, milliseconds):
    delay = milliseconds / 2000
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    print(listener.getsockname()[1], flush=True)
    while True:
        client = listener.accept()[0]
        # The handshake was answered by the kernel of this machine, at once.
        connected = time.monotonic() + 2 * delay
        try:
            server = socket.create_connection(("127.0.0.1", port))
        except OSError:
            client.close()
            continue
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=pump, args=(client, server, delay, connected), daemon=True).start()
        threading.Thread(target=pump, args=(server, client, delay, 0.0), daemon=True).start()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(int(sys.argv[1]), float(sys.argv[2]))
