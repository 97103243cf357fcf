// How members on one host hand each other their memory: descriptors over an abstract Unix socket.
#ifndef PAGEMESH_TRANSPORT_SHM_SHM_SOCKET_H_
#define PAGEMESH_TRANSPORT_SHM_SHM_SOCKET_H_

#include <cstddef>
#include <cstdint>

#include "base/unique_fd.h"

namespace pagemesh {

constexpr size_t kShmNameBytes = 32;
constexpr size_t kShmTokenBytes = 16;
constexpr int kMaxPassedFds = 4;

// What one member tells another over their connection. Both know from whom: a token that only the
// two know proves it.
struct ShmOffer {
  uint32_t version;
  uint32_t reserved;
  uint8_t host[16];  // the kernel's boot id
  char name[kShmNameBytes];
  uint8_t token[kShmTokenBytes];  // to be said back by whoever connects
};

// The first message over the socket, with the ring, the bell and the engine's descriptor.
struct ShmHello {
  uint32_t version;
  uint32_t rank;
  uint8_t token[kShmTokenBytes];
};

// Each further one, with the region's memory: its frames, and the directory behind them.
struct ShmRegion {
  uint32_t region;
  uint32_t reserved;
  uint64_t frames_bytes;
  uint64_t total_bytes;
};

constexpr uint32_t kShmVersion = 2;

// All do not block, and set errno where they fail.
UniqueFd ListenShm(char (*name)[kShmNameBytes]);
UniqueFd AcceptShm(int listener);
UniqueFd ConnectShm(const char (&name)[kShmNameBytes]);
// EAGAIN if the other side has to read first.
bool SendWithFds(int socket, const void* message, size_t length, const int* fds, int count);
// Receives one whole message of this length with this many descriptors. ENOMSG if the other side
// has said something else, EAGAIN if it has said nothing.
bool ReceiveWithFds(int socket, void* message, size_t length, UniqueFd* fds, int count);

bool FillRandom(void* bytes, size_t length);
bool ReadBootId(uint8_t (*id)[16]);

}  // namespace pagemesh

#endif  // PAGEMESH_TRANSPORT_SHM_SHM_SOCKET_H_
