#include "transport/shm/shm_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>

namespace pagemesh {
namespace {

constexpr int kBacklog = 64;  // more than a mesh has members

// An abstract name: a zero, and then what was agreed on.
socklen_t MakeAddress(const char (&name)[kShmNameBytes], sockaddr_un* address) {
  *address = {};
  address->sun_family = AF_UNIX;
  memcpy(address->sun_path + 1, name, kShmNameBytes);
  return static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + kShmNameBytes);
}

UniqueFd MakeSocket() {
  return UniqueFd(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
}

bool IsOwnUser(int socket) {
  ucred peer;
  socklen_t length = sizeof(peer);
  return getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 && peer.uid == geteuid();
}

}  // namespace

UniqueFd ListenShm(char (*name)[kShmNameBytes]) {
  uint8_t random[kShmNameBytes / 2];
  UniqueFd fd = MakeSocket();
  if (!fd.valid() || !FillRandom(random, sizeof(random))) return UniqueFd();
  for (size_t i = 0; i < sizeof(random); i++) {
    static const char digits[] = "0123456789abcdef";
    (*name)[2 * i] = digits[random[i] >> 4];
    (*name)[2 * i + 1] = digits[random[i] & 15];
  }
  sockaddr_un address;
  const socklen_t length = MakeAddress(*name, &address);
  if (bind(fd.get(), reinterpret_cast<sockaddr*>(&address), length) != 0 ||
      listen(fd.get(), kBacklog) != 0) {
    return UniqueFd();
  }
  return fd;
}

UniqueFd AcceptShm(int listener) {
  for (;;) {
    UniqueFd fd(accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!fd.valid() || IsOwnUser(fd.get())) return fd;
  }
}

UniqueFd ConnectShm(const char (&name)[kShmNameBytes]) {
  UniqueFd fd = MakeSocket();
  if (!fd.valid()) return fd;
  sockaddr_un address;
  const socklen_t length = MakeAddress(name, &address);
  if (connect(fd.get(), reinterpret_cast<sockaddr*>(&address), length) != 0) return UniqueFd();
  if (IsOwnUser(fd.get())) return fd;
  errno = EACCES;
  return UniqueFd();
}

bool SendWithFds(int socket, const void* message, size_t length, const int* fds, int count) {
  iovec piece = {const_cast<void*>(message), length};
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxPassedFds * sizeof(int))] = {};
  msghdr header = {};
  header.msg_iov = &piece;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = CMSG_SPACE(static_cast<size_t>(count) * sizeof(int));
  cmsghdr* rights = CMSG_FIRSTHDR(&header);
  rights->cmsg_level = SOL_SOCKET;
  rights->cmsg_type = SCM_RIGHTS;
  rights->cmsg_len = CMSG_LEN(static_cast<size_t>(count) * sizeof(int));
  memcpy(CMSG_DATA(rights), fds, static_cast<size_t>(count) * sizeof(int));
  ssize_t sent;
  do {
    sent = sendmsg(socket, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
  } while (sent < 0 && errno == EINTR);
  return sent == static_cast<ssize_t>(length);
}

bool ReceiveWithFds(int socket, void* message, size_t length, UniqueFd* fds, int count) {
  iovec piece = {message, length};
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxPassedFds * sizeof(int))];
  msghdr header = {};
  header.msg_iov = &piece;
  header.msg_iovlen = 1;
  header.msg_control = control;
  header.msg_controllen = sizeof(control);
  ssize_t got;
  do {
    got = recvmsg(socket, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  } while (got < 0 && errno == EINTR);
  if (got < 0) return false;
  int taken = 0;
  for (cmsghdr* part = CMSG_FIRSTHDR(&header); part != nullptr; part = CMSG_NXTHDR(&header, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    const size_t passed = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < passed; i++) {
      int fd;
      memcpy(&fd, CMSG_DATA(part) + i * sizeof(int), sizeof(fd));
      if (taken < count) {
        fds[taken++].Reset(fd);
      } else {
        close(fd);
        taken = kMaxPassedFds + 1;  // more than was to come
      }
    }
  }
  const bool whole = got == static_cast<ssize_t>(length) && taken == count &&
                     (header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0;
  if (!whole) errno = ENOMSG;
  return whole;
}

bool FillRandom(void* bytes, size_t length) {
  return getrandom(bytes, length, 0) == static_cast<ssize_t>(length);
}

bool ReadBootId(uint8_t (*id)[16]) {
  FILE* file = fopen("/proc/sys/kernel/random/boot_id", "re");
  if (file == nullptr) return false;
  size_t count = 0;
  int high = -1;
  for (int c = fgetc(file); c != EOF && count < sizeof(*id); c = fgetc(file)) {
    const int value = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    if (value < 0) continue;
    if (high < 0) {
      high = value;
    } else {
      (*id)[count++] = static_cast<uint8_t>(high << 4 | value);
      high = -1;
    }
  }
  fclose(file);
  if (count == sizeof(*id)) return true;
  errno = ENODATA;
  return false;
}

}  // namespace pagemesh
