/* A Node-API addon with which a test plays a member on the same host that says and hands over what
   it should not: native/transport/shm/. The few functions of Node-API that it needs are declared
   here, so that it builds without the headers of Node.js. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

typedef struct napi_env__* napi_env;
typedef struct napi_value__* napi_value;
typedef struct napi_callback_info__* napi_callback_info;
typedef napi_value (*napi_callback)(napi_env, napi_callback_info);
int napi_create_function(napi_env, const char*, size_t, napi_callback, void*, napi_value*);
int napi_set_named_property(napi_env, napi_value, const char*, napi_value);
int napi_get_cb_info(napi_env, napi_callback_info, size_t*, napi_value*, napi_value*, void**);
int napi_get_value_uint32(napi_env, napi_value, uint32_t*);
int napi_get_buffer_info(napi_env, napi_value, void**, size_t*);
int napi_get_boolean(napi_env, bool, napi_value*);

#define NAME_BYTES 32
#define MAX_FDS 4
#define MAX_ARGUMENTS 4

static int listener = -1, out = -1;
static uint8_t* ring;
static size_t ring_bytes;

static napi_value boolean(napi_env env, bool value) {
  napi_value result;
  napi_get_boolean(env, value, &result);
  return result;
}

static size_t arguments(napi_env env, napi_callback_info info, napi_value* given) {
  size_t count = MAX_ARGUMENTS;
  napi_get_cb_info(env, info, &count, given, NULL, NULL);
  return count;
}

static uint32_t number(napi_env env, napi_value value) {
  uint32_t result = 0;
  napi_get_value_uint32(env, value, &result);
  return result;
}

static void* bytes(napi_env env, napi_value value, size_t* length) {
  void* data = NULL;
  napi_get_buffer_info(env, value, &data, length);
  return data;
}

static socklen_t address_of(const void* name, struct sockaddr_un* address) {
  memset(address, 0, sizeof(*address));
  address->sun_family = AF_UNIX;
  memcpy(address->sun_path + 1, name, NAME_BYTES);
  return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + NAME_BYTES);
}

/* listen(name) */
static napi_value listen_at(napi_env env, napi_callback_info info) {
  napi_value given[MAX_ARGUMENTS];
  size_t length;
  struct sockaddr_un address;
  arguments(env, info, given);
  listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  const socklen_t address_bytes = address_of(bytes(env, given[0], &length), &address);
  return boolean(env, bind(listener, (struct sockaddr*)&address, address_bytes) == 0 &&
                          listen(listener, 8) == 0);
}

/* connect(name) */
static napi_value connect_to(napi_env env, napi_callback_info info) {
  napi_value given[MAX_ARGUMENTS];
  size_t length;
  struct sockaddr_un address;
  arguments(env, info, given);
  out = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  const socklen_t address_bytes = address_of(bytes(env, given[0], &length), &address);
  return boolean(env, connect(out, (struct sockaddr*)&address, address_bytes) == 0);
}

static int make_memory(size_t length, bool sealed) {
  const int fd = memfd_create("shm-hands", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (ftruncate(fd, (off_t)length) != 0) return -1;
  if (sealed) fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
  return fd;
}

static bool send_with(const void* message, size_t length, const int* fds, size_t count) {
  struct iovec piece = {(void*)message, length};
  char control[CMSG_SPACE(MAX_FDS * sizeof(int))];
  memset(control, 0, sizeof(control));
  struct msghdr header = {0};
  header.msg_iov = &piece;
  header.msg_iovlen = 1;
  if (count > 0) {
    header.msg_control = control;
    header.msg_controllen = CMSG_SPACE(count * sizeof(int));
    struct cmsghdr* rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(rights), fds, count * sizeof(int));
  }
  return sendmsg(out, &header, MSG_NOSIGNAL) == (ssize_t)length;
}

/* hello(message, bytes of the ring, bytes of the bell, what: 0 all is well, 1 the ring may shrink,
   2 a descriptor is missing, 3 there is one too many) */
static napi_value hello(napi_env env, napi_callback_info info) {
  napi_value given[MAX_ARGUMENTS];
  size_t length;
  arguments(env, info, given);
  const void* message = bytes(env, given[0], &length);
  ring_bytes = number(env, given[1]);
  const uint32_t what = number(env, given[3]);
  const int fds[MAX_FDS] = {make_memory(ring_bytes, what != 1),
                            make_memory(number(env, given[2]), true),
                            eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), dup(0)};
  ring = mmap(NULL, ring_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fds[0], 0);
  const bool sent = send_with(message, length, fds, what == 2 ? 2 : what == 3 ? 4 : 3);
  for (int i = 0; i < MAX_FDS; i++) close(fds[i]);
  return boolean(env, sent);
}

/* put(offset in the ring, bytes) */
static napi_value put(napi_env env, napi_callback_info info) {
  napi_value given[MAX_ARGUMENTS];
  size_t length;
  arguments(env, info, given);
  const void* data = bytes(env, given[1], &length);
  const uint32_t offset = number(env, given[0]);
  if (ring == NULL || offset + length > ring_bytes) return boolean(env, false);
  memcpy(ring + offset, data, length);
  return boolean(env, true);
}

/* region(message, bytes of the memory, whether it is sealed) */
static napi_value region(napi_env env, napi_callback_info info) {
  napi_value given[MAX_ARGUMENTS];
  size_t length;
  arguments(env, info, given);
  const void* message = bytes(env, given[0], &length);
  const int fd = make_memory(number(env, given[1]), number(env, given[2]) != 0);
  const bool sent = send_with(message, length, &fd, 1);
  close(fd);
  return boolean(env, sent);
}

/* say(message): without any descriptor */
static napi_value say(napi_env env, napi_callback_info info) {
  napi_value given[MAX_ARGUMENTS];
  size_t length;
  arguments(env, info, given);
  const void* message = bytes(env, given[0], &length);
  return boolean(env, send_with(message, length, NULL, 0));
}

__attribute__((visibility("default"))) int32_t node_api_module_get_api_version_v1(void) {
  return 8;
}

__attribute__((visibility("default"))) napi_value napi_register_module_v1(napi_env env,
                                                                          napi_value exports) {
  const struct {
    const char* name;
    napi_callback run;
  } functions[] = {{"listen", listen_at}, {"connect", connect_to}, {"hello", hello},
                   {"put", put},          {"region", region},      {"say", say}};
  for (unsigned i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {
    napi_value made;
    napi_create_function(env, functions[i].name, strlen(functions[i].name), functions[i].run, NULL,
                         &made);
    napi_set_named_property(env, exports, functions[i].name, made);
  }
  return exports;
}
