/* A model server that costs nothing: one thread, epoll, fixed OpenAI-shaped answers.
 *
 *   stub PORT CHUNKS TICK_US
 *
 * A request whose body contains "stream":true (spaces allowed) is answered with CHUNKS server-sent
 * events, each its own send(), one a tick (the first at once); any other with one JSON body of about 800 bytes.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { MAX_FD = 4096, BUFFER = 1 << 17 };

struct peer {
    char *data;
    int used;
    int chunks_left; /* -1: no stream runs */
};

static struct peer peers[MAX_FD];
static int streaming[MAX_FD], streams;
static char plain[4096], stream_head[256], role[512], token[512], ending[1024];
static int chunks_per_stream = 100;

static const char *ANSWER =
    "{\"id\":\"chatcmpl-stub\",\"object\":\"chat.completion\",\"created\":1741569952,\"model\":\"stub\","
    "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"A canary is watched on "
    "errors, latency and cost; it is rolled back when the evidence says that it is worse, and promoted "
    "when the evidence says that it is not. Looking often is fine as long as the test allows for it. "
    "Before a rollback check that the baseline is well, that the traffic is split as asked, and that "
    "the alarm is not a shared fault.\",\"refusal\":null},\"logprobs\":null,\"finish_reason\":\"stop\"}],"
    "\"usage\":{\"prompt_tokens\":119,\"completion_tokens\":40,\"total_tokens\":159,"
    "\"prompt_tokens_details\":{\"cached_tokens\":0}},\"system_fingerprint\":\"fp_stub\"}";

static void add_event(char *out, const char *json) {
    char event[900];
    int n = snprintf(event, sizeof event, "data: %s\n\n", json);
    sprintf(out + strlen(out), "%x\r\n%s\r\n", n, event);
}

#define CHUNK(delta, finish) \
    "{\"id\":\"chatcmpl-stub\",\"object\":\"chat.completion.chunk\",\"created\":1741569952,\"model\":\"stub\"," \
    "\"choices\":[{\"index\":0,\"delta\":" delta ",\"logprobs\":null,\"finish_reason\":" finish "}]}"

static void prepare(void) {
    snprintf(plain, sizeof plain, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n\r\n%s",
             strlen(ANSWER), ANSWER);
    strcpy(stream_head, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n");
    add_event(role, CHUNK("{\"role\":\"assistant\",\"content\":\"\"}", "null"));
    add_event(token, CHUNK("{\"content\":\" token\"}", "null"));
    add_event(ending, CHUNK("{}", "\"stop\""));
    add_event(ending, "{\"id\":\"chatcmpl-stub\",\"object\":\"chat.completion.chunk\",\"created\":1741569952,\"model\":\"stub\","
                      "\"choices\":[],\"usage\":{\"prompt_tokens\":119,\"completion_tokens\":100,\"total_tokens\":219}}");
    strcat(ending, "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n");
}

static void put(int fd, const char *text) {
    size_t left = strlen(text);
    while (left > 0) {
        ssize_t n = send(fd, text, left, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) { usleep(50); continue; }
        if (n <= 0) return;
        text += n;
        left -= n;
    }
}

static void stop_stream(int index) {
    peers[streaming[index]].chunks_left = -1;
    streaming[index] = streaming[--streams];
}

static void drop(int fd) {
    for (int i = 0; i < streams; i++)
        if (streaming[i] == fd) { stop_stream(i); break; }
    peers[fd].used = 0;
    peers[fd].chunks_left = -1;
    close(fd);
}

static int asks_stream(const char *body) {
    const char *field = strstr(body, "\"stream\"");
    if (!field) return 0;
    field += 8;
    while (*field == ' ' || *field == ':') field++;
    return strncmp(field, "true", 4) == 0;
}

/* Answer every whole request in the buffer; a stream first has to end. */
static void answer(int fd) {
    struct peer *peer = &peers[fd];
    while (peer->used > 0 && peer->chunks_left < 0) {
        peer->data[peer->used] = 0;
        char *blank = strstr(peer->data, "\r\n\r\n");
        if (!blank) return;
        char *length = strcasestr(peer->data, "content-length:");
        int total = (int)(blank + 4 - peer->data) + (length && length < blank ? atoi(length + 15) : 0);
        if (peer->used < total) return;
        char kept = peer->data[total];
        peer->data[total] = 0;
        int stream = asks_stream(blank);
        peer->data[total] = kept;
        memmove(peer->data, peer->data + total, peer->used - total);
        peer->used -= total;
        if (stream) {
            put(fd, stream_head);
            put(fd, role);
            put(fd, token); /* at once, so that the time to it says something */
            peer->chunks_left = chunks_per_stream - 1;
            streaming[streams++] = fd;
        } else {
            put(fd, plain);
        }
    }
}

static void tick(void) {
    for (int i = 0; i < streams;) {
        int fd = streaming[i];
        if (peers[fd].chunks_left > 0) {
            peers[fd].chunks_left--;
            put(fd, token);
            i++;
        } else {
            put(fd, ending);
            stop_stream(i);
            answer(fd);
        }
    }
}

static void receive(int fd) {
    struct peer *peer = &peers[fd];
    ssize_t n = recv(fd, peer->data + peer->used, BUFFER - peer->used, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) { drop(fd); return; }
    peer->used += n;
    answer(fd);
}

static void accept_all(int listener, int poll) {
    for (;;) {
        int one = 1, fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
        if (fd < 0) return;
        if (fd >= MAX_FD) { close(fd); continue; }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (!peers[fd].data) peers[fd].data = malloc(BUFFER + 1);
        peers[fd].used = 0;
        peers[fd].chunks_left = -1;
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        epoll_ctl(poll, EPOLL_CTL_ADD, fd, &event);
    }
}

int main(int count, char **arguments) {
    if (count != 4) return 2;
    chunks_per_stream = atoi(arguments[2]);
    long tick_us = atol(arguments[3]);
    prepare();
    signal(SIGPIPE, SIG_IGN);
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(arguments[1]))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (void *)&address, sizeof address) || listen(listener, 1024)) { perror("stub"); return 1; }
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK), poll = epoll_create1(0);
    struct timespec step = {tick_us / 1000000, tick_us % 1000000 * 1000};
    struct itimerspec every = {step, step};
    timerfd_settime(timer, 0, &every, NULL);
    int fixed[2] = {listener, timer};
    for (int i = 0; i < 2; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fixed[i]};
        epoll_ctl(poll, EPOLL_CTL_ADD, fixed[i], &event);
    }
    for (;;) {
        struct epoll_event events[256];
        int n = epoll_wait(poll, events, 256, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            unsigned long long expired;
            if (fd == listener) accept_all(listener, poll);
            else if (fd != timer) receive(fd);
            else if (read(timer, &expired, sizeof expired) > 0) tick();
        }
    }
}
