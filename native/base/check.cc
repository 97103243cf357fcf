#include "base/check.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

namespace pagemesh {
namespace {

// Appends without allocation or locale, so that it may run in a signal handler.
class Line {
 public:
  void Text(const char* text) {
    while (*text != '\0' && length_ < sizeof(buffer_)) buffer_[length_++] = *text++;
  }
  void Number(long long value) {
    char digits[24];
    int count = 0;
    unsigned long long rest = value < 0 ? 0ULL - static_cast<unsigned long long>(value) : value;
    do {
      digits[count++] = static_cast<char>('0' + rest % 10);
      rest /= 10;
    } while (rest != 0);
    if (value < 0) Text("-");
    while (count > 0 && length_ < sizeof(buffer_)) buffer_[length_++] = digits[--count];
  }
  void Print() {
    ssize_t ignored = write(STDERR_FILENO, buffer_, length_);
    (void)ignored;
  }

 private:
  char buffer_[512];
  size_t length_ = 0;
};

}  // namespace

void CheckFailed(const char* file, int line, const char* what, long long a, long long b) {
  Line out;
  out.Text("pagemesh: ");
  out.Text(file);
  out.Text(":");
  out.Number(line);
  out.Text(": check failed: ");
  out.Text(what);
  out.Text(" (a=");
  out.Number(a);
  out.Text(", b=");
  out.Number(b);
  out.Text(")\n");
  out.Print();
  abort();
}

}  // namespace pagemesh
