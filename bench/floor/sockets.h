// TCP over loopback, for the programs of this folder that stand for a transport by sockets.
#ifndef PAGEMESH_BENCH_FLOOR_SOCKETS_H_
#define PAGEMESH_BENCH_FLOOR_SOCKETS_H_

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "floor.h"

static inline void SendAll(int socket_fd, const void* data, size_t length, int flags) {
  const uint8_t* bytes = data;
  while (length > 0) {
    const ssize_t sent = send(socket_fd, bytes, length, flags | MSG_NOSIGNAL);
    if (sent < 0) {
      if (errno == EINTR || errno == EAGAIN) continue;
      Fail("send");
    }
    bytes += sent;
    length -= (size_t)sent;
  }
}

// False when the other side has closed the connection before the first byte.
static inline bool ReceiveAll(int socket_fd, void* data, size_t length, int flags) {
  uint8_t* bytes = data;
  size_t received = 0;
  while (received < length) {
    const ssize_t got = recv(socket_fd, bytes + received, length - received, flags);
    if (got < 0) {
      if (errno == EINTR || errno == EAGAIN) continue;
      Fail("recv");
    }
    if (got == 0) {
      if (received == 0) return false;
      errno = ECONNRESET;
      Fail("recv");
    }
    received += (size_t)got;
  }
  return true;
}

static inline void MustReceive(int socket_fd, void* data, size_t length, int flags) {
  if (ReceiveAll(socket_fd, data, length, flags)) return;
  errno = ECONNRESET;
  Fail("the other process went away");
}

static inline int Listen(struct sockaddr_in* address) {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (listener < 0) Fail("socket");
  memset(address, 0, sizeof(*address));
  address->sin_family = AF_INET;
  address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(listener, (struct sockaddr*)address, sizeof(*address)) != 0) Fail("bind");
  if (listen(listener, 1) != 0) Fail("listen");
  socklen_t length = sizeof(*address);
  if (getsockname(listener, (struct sockaddr*)address, &length) != 0) Fail("getsockname");
  return listener;
}

static inline void SetNoDelay(int socket_fd) {
  const int on = 1;
  if (setsockopt(socket_fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0) Fail("TCP_NODELAY");
}

// Both ends of one connection, for processes that are forked afterwards.
static inline void ConnectPair(int ends[2]) {
  struct sockaddr_in address;
  const int listener = Listen(&address);
  ends[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (ends[0] < 0) Fail("socket");
  if (connect(ends[0], (struct sockaddr*)&address, sizeof(address)) != 0) Fail("connect");
  ends[1] = accept(listener, NULL, NULL);
  if (ends[1] < 0) Fail("accept");
  close(listener);
  SetNoDelay(ends[0]);
  SetNoDelay(ends[1]);
}

#endif  // PAGEMESH_BENCH_FLOOR_SOCKETS_H_
