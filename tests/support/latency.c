/* How long single requests take: one kept-alive connection, a steady rate.
 *
 *   latency PORT RATE SECONDS PATH BODYFILE STREAM [HEADER...]
 *
 * STREAM 0 times whole replies, 1 the first piece of content of a stream (which is then read to its
 * end).
 * Prints {"n":..,"failed":..,"p50_us":..,"p90_us":..,"p99_us":..}.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static char buffer[1 << 21];

static double now_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static int compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

static int connect_to(int port) {
  int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd, (struct sockaddr *)&to, sizeof to)) {
    perror("connect");
    exit(1);
  }
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  return fd;
}

/* Says whether an event with some content has come. */
static int has_content(void) {
  for (char *at = buffer; (at = strstr(at, "\"content\":")); at++) {
    char *value = at + strlen("\"content\":");
    while (*value == ' ') value++;
    if (value[0] == '"' && value[1] && value[1] != '"') return 1;
  }
  return 0;
}

/* Returns 1 when the reply is whole, 0 when more is to come. */
static int is_whole(int length) {
  char *head_end = strstr(buffer, "\r\n\r\n");
  if (!head_end) return 0;
  char *field = strcasestr(buffer, "content-length:");
  if (field && field < head_end)
    return length >= head_end + 4 - buffer + atoi(field + 15);
  return length >= 5 && !memcmp(buffer + length - 5, "0\r\n\r\n", 5);
}

int main(int argc, char **argv) {
  if (argc < 7) return 2;
  int port = atoi(argv[1]), stream = atoi(argv[6]);
  double rate = atof(argv[2]), seconds = atof(argv[3]);
  static char body[1 << 16], request[1 << 17];
  FILE *file = fopen(argv[5], "r");
  if (!file) return 2;
  size_t body_length = fread(body, 1, sizeof body - 1, file);
  fclose(file);
  int size = sprintf(request,
                     "POST %s HTTP/1.1\r\nhost: 127.0.0.1:%d\r\ncontent-type: application/json\r\n"
                     "content-length: %zu\r\n", argv[4], port, body_length);
  for (int i = 7; i < argc; i++) size += sprintf(request + size, "%s\r\n", argv[i]);
  size += sprintf(request + size, "\r\n%s", body);
  int count = rate * seconds, done = 0, failed = 0, fd = connect_to(port);
  double *took = malloc(sizeof(double) * (count + 1)), start = now_us();
  for (int i = 0; i < count; i++) {
    double due = start + i * 1e6 / rate, at = now_us(), first = 0;
    if (due > at) usleep(due - at);
    at = now_us();
    if (send(fd, request, size, MSG_NOSIGNAL) != size) { failed++; break; }
    int length = 0, lost = 0;
    while (1) {
      int got = recv(fd, buffer + length, sizeof buffer - 1 - length, 0);
      if (got <= 0) { lost = 1; break; }
      length += got;
      buffer[length] = 0;
      if (stream && !first && has_content()) first = now_us();
      if (is_whole(length)) break;
    }
    if (lost) { close(fd); fd = connect_to(port); failed++; continue; }
    if (strncmp(buffer + 9, "200", 3) || (stream && !first)) { failed++; continue; }
    took[done++] = (stream ? first : now_us()) - at;
  }
  qsort(took, done, sizeof(double), compare);
  if (!done) { printf("{\"n\":0,\"failed\":%d}\n", failed); return 1; }
  printf("{\"n\":%d,\"failed\":%d,\"p50_us\":%.1f,\"p90_us\":%.1f,\"p99_us\":%.1f}\n", done, failed,
         took[done / 2], took[done * 9 / 10], took[done * 99 / 100]);
  return 0;
}
