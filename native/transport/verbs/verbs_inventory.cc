#include "transport/verbs/verbs_inventory.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>

#include "base/unique_fd.h"
#include "transport/verbs/verbs_library.h"

namespace pagemesh {
namespace {

// Where libibverbs looks too.
std::string DevicesFolder() {
  const char* root = getenv("SYSFS_PATH");
  return std::string(root == nullptr ? "/sys" : root) + "/class/infiniband";
}

// All that the kernel has, also where libibverbs is not there or does not know the device.
std::vector<std::string> NamesInSysfs() {
  std::vector<std::string> names;
  DIR* folder = opendir(DevicesFolder().c_str());
  if (folder == nullptr) return names;
  for (const dirent* entry = readdir(folder); entry != nullptr; entry = readdir(folder)) {
    if (entry->d_name[0] != '.') names.emplace_back(entry->d_name);
  }
  closedir(folder);
  std::sort(names.begin(), names.end());
  return names;
}

#if PAGEMESH_HAS_VERBS

// A queue pair names its GID by eight bits.
constexpr int kMaxGids = 256;

std::string FirstLine(const std::string& path) {
  FILE* file = fopen(path.c_str(), "re");
  if (file == nullptr) return "";
  char text[64] = {};
  const bool read = fgets(text, sizeof(text), file) != nullptr;
  fclose(file);
  if (read) text[strcspn(text, "\n")] = '\0';
  return text;
}

// RoCE writes an IPv4 address as an IPv4-mapped IPv6 address (RFC 4291, 2.5.5.2) into the GID.
std::string AddressOf(const ibv_gid& gid) {
  in6_addr address;
  static_assert(sizeof(address) == sizeof(gid.raw), "a GID has the form of an IPv6 address");
  memcpy(&address, gid.raw, sizeof(address));
  char text[INET6_ADDRSTRLEN] = {};
  if (IN6_IS_ADDR_V4MAPPED(&address)) {
    inet_ntop(AF_INET, gid.raw + 12, text, sizeof(text));
  } else {
    inet_ntop(AF_INET6, &address, text, sizeof(text));
  }
  return text;
}

const char* StateName(ibv_port_state state) {
  switch (state) {
    case IBV_PORT_DOWN:
      return "down";
    case IBV_PORT_INIT:
      return "initialising";
    case IBV_PORT_ARMED:
      return "armed";
    case IBV_PORT_ACTIVE:
      return "active";
    case IBV_PORT_ACTIVE_DEFER:
      return "active, deferred";
    default:
      return "unknown";
  }
}

// libibverbs tells kind and network of a GID only by an extended call; sysfs has them in all
// versions.
RdmaGid DescribeGid(const std::string& folder, int index, const ibv_gid& gid, bool ethernet) {
  RdmaGid described;
  described.index = index;
  described.address = AddressOf(gid);
  const std::string kind = FirstLine(folder + "/types/" + std::to_string(index));
  if (kind == "RoCE v2") {
    described.kind = kind;
  } else if (!kind.empty()) {  // "IB/RoCE v1"
    described.kind = ethernet ? "RoCE v1" : "InfiniBand";
  }
  described.network = FirstLine(folder + "/ndevs/" + std::to_string(index));
  return described;
}

RdmaPort DescribePort(const VerbsLibrary& verbs, ibv_context* context, const std::string& device,
                      int number) {
  RdmaPort port;
  port.number = number;
  port.state = "unknown";
  ibv_port_attr attributes = {};
  // The old layout is the beginning of the new one, and all that is needed here.
  auto* old = reinterpret_cast<_compat_ibv_port_attr*>(&attributes);
  if (verbs.query_port(context, static_cast<uint8_t>(number), old) != 0) return port;
  const bool ethernet = attributes.link_layer == IBV_LINK_LAYER_ETHERNET;
  port.state = StateName(attributes.state);
  port.link_layer = ethernet ? "Ethernet" : "InfiniBand";
  port.active_mtu_bytes = 128 << attributes.active_mtu;
  const std::string folder =
      DevicesFolder() + "/" + device + "/ports/" + std::to_string(number) + "/gid_attrs";
  const ibv_gid none = {};
  for (int index = 0; index < std::min(attributes.gid_tbl_len, kMaxGids); index++) {
    ibv_gid gid = {};
    if (verbs.query_gid(context, static_cast<uint8_t>(number), index, &gid) != 0) continue;
    if (memcmp(gid.raw, none.raw, sizeof(gid.raw)) == 0) continue;
    port.gids.push_back(DescribeGid(folder, index, gid, ethernet));
  }
  return port;
}

// libibverbs searches further when it may not open the device's file, and then says that there is
// none; so ask again why not.
int OpenError(const ibv_device* device, int error) {
  const std::string path = std::string("/dev/infiniband/") + device->dev_name;
  const UniqueFd file(open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (!file.valid()) return errno;
  return error != 0 ? error : EIO;
}

void DescribeDevice(const VerbsLibrary& verbs, ibv_device* found, RdmaDevice* device) {
  device->has_provider = true;
  ibv_context* context = verbs.open_device(found);
  if (context == nullptr) {
    device->error = OpenError(found, errno);
    return;
  }
  ibv_device_attr attributes = {};
  if (verbs.query_device(context, &attributes) == 0) {
    for (int number = 1; number <= attributes.phys_port_cnt; number++) {
      device->ports.push_back(DescribePort(verbs, context, device->name, number));
    }
  } else {
    device->error = EIO;
  }
  verbs.close_device(context);
}

#endif  // PAGEMESH_HAS_VERBS

}  // namespace

RdmaInventory ListRdmaDevices() {
  RdmaInventory inventory;
  for (const std::string& name : NamesInSysfs()) {
    inventory.devices.emplace_back();
    inventory.devices.back().name = name;
  }
#if PAGEMESH_HAS_VERBS
  const char* missing = nullptr;
  const VerbsLibrary* verbs = VerbsLibrary::Load(&missing);
  if (verbs == nullptr) {
    inventory.unavailable = missing;
    return inventory;
  }
  const VerbsDeviceList list(verbs);
  for (int i = 0; i < list.count(); i++) {
    const std::string name = verbs->get_device_name(list.at(i));
    for (RdmaDevice& device : inventory.devices) {
      if (device.name == name) DescribeDevice(*verbs, list.at(i), &device);
    }
  }
#else
  inventory.unavailable = "pagemesh was built without the RDMA headers";
#endif
  return inventory;
}

}  // namespace pagemesh
