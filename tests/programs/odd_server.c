/* A server that is none: it speaks enough of PostgreSQL's protocol to be a session, and moves bytes by whatever call it
 * is told to, so that a suite can see what the tap makes of calls that no PostgreSQL makes.
 *
 * usage: postgres -D FOLDER PORT    (the file's name and the exported symbol make the agent take it for a server)
 *
 * The query NEXT in=HOW out=HOW says by which calls the next message is taken and answered. Everything else is answered
 * with one row. A client that asks for TLS gets something like it: a veil over every byte, put on and taken off in
 * functions that have the names and arguments of PostgreSQL's. in=leap leaves one of them by longjmp before it returns, and
 * out=retry has it fail a few times. Built with: cc -rdynamic -pthread odd_server.c -o postgres
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <setjmp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif
#ifndef SO_ZEROCOPY
#define SO_ZEROCOPY 60
#endif
#ifndef MSG_ZEROCOPY
#define MSG_ZEROCOPY 0x4000000
#endif

/* What the agent looks for in an executable before it takes it for a server. */
void PostmasterMain(void);
void PostmasterMain(void) {}

enum { LIMIT = 8 << 20, ELSEWHERE = 65536 };
static char message[LIMIT], answer[LIMIT], spare[LIMIT];

static void fail(const char *what)
{
    fprintf(stderr, "odd server: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* Requests that must not be found in the record: what stands where the tap must not look. */
static void decoy(char *buffer, size_t length)
{
    static const char request[] = "Q\0\0\0\x18" "SELECT 999999999999";
    for (size_t i = 0; i < length; i++)
        buffer[i] = request[i % sizeof request];
}

/* The same bytes in several buffers, an empty one among them, with others between them. */
static int scattered(struct iovec parts[4], size_t length)
{
    static char places[LIMIT + 96];
    size_t first = length < 3 ? length : 3, second = length - first < 9 ? length - first : 9;
    decoy(places, length + 96);
    parts[0] = (struct iovec){places, first};
    parts[1] = (struct iovec){places + 16, 0};
    parts[2] = (struct iovec){places + 32, second};
    parts[3] = (struct iovec){places + 64, length - first - second};
    return 4;
}

static void copy_parts(const struct iovec parts[4], char *bytes, int into_parts)
{
    for (int i = 0; i < 4; bytes += parts[i++].iov_len)
        memcpy(into_parts ? parts[i].iov_base : bytes, into_parts ? bytes : parts[i].iov_base, parts[i].iov_len);
}

/* One operation through io_uring, waited for: in the call that is made for that, or meanwhile in a receive on another
 * socket, whose buffer holds something else. */
static long ring(int opcode, int fd, void *buffer, unsigned length, int elsewhere)
{
    struct io_uring_params params;
    memset(&params, 0, sizeof params);
    int uring = (int) syscall(SYS_io_uring_setup, 4, &params);
    if (uring < 0)
        return -1;
    size_t sq_size = params.sq_off.array + params.sq_entries * sizeof(unsigned);
    size_t cq_size = params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe);
    char *sq = mmap(NULL, sq_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, uring, IORING_OFF_SQ_RING);
    char *cq = mmap(NULL, cq_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, uring, IORING_OFF_CQ_RING);
    struct io_uring_sqe *entry = mmap(NULL, params.sq_entries * sizeof *entry, PROT_READ | PROT_WRITE,
                                      MAP_SHARED | MAP_POPULATE, uring, IORING_OFF_SQES);
    if (sq == MAP_FAILED || cq == MAP_FAILED || entry == MAP_FAILED)
        fail("mapping the ring");
    memset(entry, 0, sizeof *entry);
    entry->opcode = (uint8_t) opcode;
    entry->fd = fd;
    entry->addr = (uintptr_t) buffer;
    entry->len = length;
    ((unsigned *) (sq + params.sq_off.array))[0] = 0;
    __atomic_store_n((unsigned *) (sq + params.sq_off.tail), 1, __ATOMIC_RELEASE);
    if (syscall(SYS_io_uring_enter, uring, 1, !elsewhere, elsewhere ? 0 : IORING_ENTER_GETEVENTS, NULL, 0) < 0)
        fail("io_uring_enter");
    unsigned *completed = (unsigned *) (cq + params.cq_off.tail);
    int other[2];
    struct timeval moment = {.tv_usec = 20000};
    if (elsewhere && (socketpair(AF_UNIX, SOCK_STREAM, 0, other) < 0
        || setsockopt(other[0], SOL_SOCKET, SO_RCVTIMEO, &moment, sizeof moment) < 0))
        fail("another socket");
    for (int turn = 0; elsewhere && turn < 500 && __atomic_load_n(completed, __ATOMIC_ACQUIRE) == 0; turn++) {
        decoy(spare, length);
        recv(other[0], spare, length, 0);
    }
    long result = ((struct io_uring_cqe *) (cq + params.cq_off.cqes))[0].res;
    close(uring);
    if (result < 0) {
        errno = (int) -result;
        return -1;
    }
    return result;
}

struct reading { int fd; char *buffer; size_t length; long result; };

static void *read_elsewhere(void *argument)
{
    struct reading *reading = argument;
    reading->result = recv(reading->fd, reading->buffer, reading->length, 0);
    return NULL;
}

/* A buffer whose pages are taken out of this process' tables again and again; what is in them stays in the file. */
struct evicted { char *pages; size_t length; int over; };

static void *evict(void *argument)
{
    struct evicted *evicted = argument;
    while (!__atomic_load_n(&evicted->over, __ATOMIC_ACQUIRE)) {
        madvise(evicted->pages, evicted->length, MADV_DONTNEED);
        sched_yield();
    }
    return NULL;
}

static char *file_pages(size_t length)
{
    int file = memfd_create("pages", 0);
    if (file < 0 || ftruncate(file, (off_t) length) < 0)
        fail("a file of pages");
    char *pages = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (pages == MAP_FAILED)
        fail("mapping pages");
    return pages;
}

/* Moves all bytes in one call that has to wait in between, so that the front of the buffer is gone when it returns. */
static long move_evicted(int fd, char *buffer, size_t length, int sends)
{
    struct evicted evicted = {file_pages(length), length, 0};
    pthread_t thread;
    if (sends)
        memcpy(evicted.pages, buffer, length);
    if (pthread_create(&thread, NULL, evict, &evicted) != 0)
        fail("a thread");
    long moved = sends ? send(fd, evicted.pages, length, 0) : recv(fd, evicted.pages, length, MSG_WAITALL);
    __atomic_store_n(&evicted.over, 1, __ATOMIC_RELEASE);
    pthread_join(thread, NULL);
    if (!sends && moved > 0)
        memcpy(buffer, evicted.pages, (size_t) moved);
    munmap(evicted.pages, length);
    return moved;
}

/* Takes up to `length` bytes by the call named; the bytes are in `buffer` afterwards unless it discards them. */
static long take(int fd, const char *how, char *buffer, size_t length)
{
    if (!strcmp(how, "read"))
        return read(fd, buffer, length);
    if (!strcmp(how, "readv") || !strcmp(how, "recvmsg")) {
        struct iovec parts[4];
        int count = scattered(parts, length);
        struct msghdr header = {.msg_iov = parts, .msg_iovlen = (size_t) count};
        long got = how[3] == 'd' ? readv(fd, parts, count) : recvmsg(fd, &header, 0);
        copy_parts(parts, buffer, 0);
        return got;
    }
    if (!strcmp(how, "manyvectors")) {
        /* A byte each: more buffers than a walk may follow. */
        static struct iovec parts[1000];
        size_t count = length < 999 ? length : 999;
        for (size_t i = 0; i < count; i++)
            parts[i] = (struct iovec){buffer + i, 1};
        parts[count] = (struct iovec){buffer + count, length - count};
        return readv(fd, parts, (int) count + 1);
    }
    if (!strcmp(how, "peek")) {
        if (recv(fd, spare, length, MSG_PEEK) < 0)
            return -1;
        struct iovec part = {spare, length};
        struct msghdr header = {.msg_iov = &part, .msg_iovlen = 1};
        if (recvmsg(fd, &header, MSG_PEEK) < 0)
            return -1;
        return recv(fd, buffer, length, 0);
    }
    if (!strcmp(how, "recvmmsg")) {
        struct iovec part = {buffer, length};
        struct mmsghdr header = {.msg_hdr = {.msg_iov = &part, .msg_iovlen = 1}};
        return recvmmsg(fd, &header, 1, 0, NULL) < 0 ? -1 : (long) header.msg_len;
    }
    if (!strcmp(how, "splice")) {
        int ends[2];
        if (pipe(ends) < 0)
            return -1;
        long moved = splice(fd, NULL, ends[1], NULL, length > 65536 ? 65536 : length, 0);
        if (moved > 0 && read(ends[0], buffer, (size_t) moved) != moved)
            fail("reading the pipe");
        close(ends[0]);
        close(ends[1]);
        return moved;
    }
    if (!strcmp(how, "uring"))
        return ring(IORING_OP_RECV, fd, buffer, (unsigned) length, 0);
    if (!strcmp(how, "uringread"))
        return ring(IORING_OP_READ, fd, buffer, (unsigned) length, 0);
    if (!strcmp(how, "discard") || !strcmp(how, "stale")) {
        /* MSG_TRUNC on a stream: the bytes are taken and copied nowhere (tcp(7)). What is in the buffer is not them. */
        if (recv(fd, buffer, length, MSG_PEEK | MSG_WAITALL) != (long) length)
            return -1;
        if (how[0] == 'd')
            return recv(fd, NULL, length, MSG_TRUNC);
        decoy(spare, length);
        return recv(fd, spare, length, MSG_TRUNC);
    }
    if (!strcmp(how, "whole"))
        return recv(fd, buffer, length, MSG_WAITALL);
    if (!strcmp(how, "evicted"))
        return move_evicted(fd, buffer, length, 0);
    if (!strcmp(how, "dup")) {
        int other = dup(fd);
        long result = recv(other, buffer, length, 0);
        close(other);
        return result;
    }
    if (!strcmp(how, "thread")) {
        struct reading reading = {fd, buffer, length, -1};
        pthread_t thread;
        if (pthread_create(&thread, NULL, read_elsewhere, &reading) != 0)
            return -1;
        pthread_join(thread, NULL);
        return reading.result;
    }
    if (!strcmp(how, "child")) {
        /* Shared, so that the parent has what the child took. */
        char *shared = mmap(NULL, length + sizeof(long), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        pid_t child = fork();
        if (child == 0) {
            *(long *) (shared + (length & ~(sizeof(long) - 1))) = 0;
            long got = recv(fd, shared, length, 0);
            _exit(got == (long) length ? 0 : 1);
        }
        int status = 0;
        waitpid(child, &status, 0);
        memcpy(buffer, shared, length);
        munmap(shared, length + sizeof(long));
        return status == 0 ? (long) length : -1;
    }
    return recv(fd, buffer, length, 0);
}

/* Gives all bytes by the call named. */
static void give(int fd, const char *how, char *bytes, size_t length)
{
    size_t done = 0;
    int file = -1, ends[2] = {-1, -1}, one = 1;
    if (!strcmp(how, "sendfile")) {
        file = memfd_create("answer", 0);
        if (file < 0 || write(file, bytes, length) != (long) length)
            fail("a file to send");
    } else if (!strcmp(how, "splice") && pipe(ends) < 0) {
        fail("a pipe");
    } else if (!strcmp(how, "zerocopy") && setsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &one, sizeof one) < 0) {
        how = "send";
    } else if (!strcmp(how, "evicted")) {
        int little = 4096;
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &little, sizeof little);
    }
    while (done < length) {
        char *from = bytes + done;
        size_t left = length - done;
        long gave;
        if (!strcmp(how, "write")) {
            gave = write(fd, from, left);
        } else if (!strcmp(how, "writev") || !strcmp(how, "sendmsg")) {
            struct iovec parts[4];
            int count = scattered(parts, left);
            struct msghdr header = {.msg_iov = parts, .msg_iovlen = (size_t) count};
            copy_parts(parts, from, 1);
            gave = how[0] == 'w' ? writev(fd, parts, count) : sendmsg(fd, &header, 0);
        } else if (!strcmp(how, "sendmmsg")) {
            struct iovec part = {from, left};
            struct mmsghdr header = {.msg_hdr = {.msg_iov = &part, .msg_iovlen = 1}};
            gave = sendmmsg(fd, &header, 1, 0) < 0 ? -1 : (long) header.msg_len;
        } else if (!strcmp(how, "sendfile")) {
            off_t at = (off_t) done;
            gave = sendfile(fd, file, &at, left);
        } else if (!strcmp(how, "splice")) {
            size_t part = left > 4096 ? 4096 : left;
            if (write(ends[1], from, part) != (long) part)
                fail("writing the pipe");
            gave = splice(ends[0], NULL, fd, NULL, part, 0);
        } else if (!strcmp(how, "uring")) {
            gave = ring(IORING_OP_SEND, fd, from, (unsigned) left, 0);
        } else if (!strcmp(how, "evicted")) {
            gave = move_evicted(fd, from, left, 1);
        } else if (!strcmp(how, "zerocopy")) {
            gave = send(fd, from, left, MSG_ZEROCOPY);
        } else {
            gave = send(fd, from, left, 0);
        }
        if (gave < 0)
            fail(how);
        done += (size_t) gave;
    }
    if (file >= 0)
        close(file);
    if (ends[0] >= 0) {
        close(ends[0]);
        close(ends[1]);
    }
}

static size_t put(size_t at, char kind, const void *body, uint32_t length)
{
    uint32_t told = htonl(length + 4);
    answer[at] = kind;
    memcpy(answer + at + 1, &told, 4);
    memcpy(answer + at + 5, body, length);
    return at + 5 + length;
}

/* Every message is looked at first, then taken as a whole: so its length is known, whatever the call. */
static long next(int fd, const char *how)
{
    /* Asked for before it comes. */
    if (!strcmp(how, "elsewhere"))
        return ring(IORING_OP_RECV, fd, message, ELSEWHERE, 1);
    unsigned char head[5];
    long seen = recv(fd, head, sizeof head, MSG_PEEK | MSG_WAITALL);
    if (seen != sizeof head)
        return seen <= 0 ? seen : -1;
    size_t length = 1 + ((size_t) head[1] << 24 | (size_t) head[2] << 16 | (size_t) head[3] << 8 | head[4]);
    if (length > LIMIT)
        return -1;
    if (strcmp(how, "whole") != 0 && length <= 65536 && recv(fd, spare, length, MSG_PEEK | MSG_WAITALL) != (long) length)
        return -1;
    for (size_t done = 0; done < length;) {
        long got = take(fd, how, message + done, length - done);
        if (got <= 0) {
            fprintf(stderr, "odd server: in=%s: %s\n", how, strerror(errno));
            return -1;
        }
        done += (size_t) got;
    }
    return (long) length;
}

static size_t greeting(void)
{
    char key[8] = {0};
    uint32_t pid = htonl((uint32_t) getpid());
    memcpy(key, &pid, 4);
    size_t end = put(0, 'R', "\0\0\0\0", 4);
    end = put(end, 'S', "client_encoding\0UTF8", 21);
    end = put(end, 'S', "server_version\0" "15.0", 20);
    end = put(end, 'K', key, 8);
    return put(end, 'Z', "I", 1);
}

/* One row of one value. */
static size_t row(size_t size)
{
    size_t end = put(0, 'T', "\0\1v\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0", 22);
    uint32_t told = htonl((uint32_t) size);
    memset(spare, 'v', size + 6);
    memcpy(spare, "\0\1", 2);
    memcpy(spare + 2, &told, 4);
    end = put(end, 'D', spare, (uint32_t) size + 6);
    end = put(end, 'C', "SELECT 1", 9);
    return put(end, 'Z', "I", 1);
}

static jmp_buf out_of_it;
static int leaps, failures;

static void veil(char *bytes, long length)
{
    for (long i = 0; i < length; i++)
        bytes[i] ^= 0x55;
}

ssize_t be_tls_read(void *port, void *buffer, size_t length, int *waitfor);
ssize_t be_tls_write(void *port, const void *buffer, size_t length, int *waitfor);

__attribute__((noinline)) ssize_t be_tls_read(void *port, void *buffer, size_t length, int *waitfor)
{
    if (leaps > 0) {
        leaps--;
        longjmp(out_of_it, 1);
    }
    long got = recv(*(int *) port, buffer, length, 0);
    *waitfor = 0;
    veil(buffer, got);
    return got;
}

__attribute__((noinline)) ssize_t be_tls_write(void *port, const void *buffer, size_t length, int *waitfor)
{
    static char veiled[65536];
    *waitfor = failures > 0;
    if (failures > 0) {
        failures--;
        return -1;
    }
    if (length > sizeof veiled)
        length = sizeof veiled;
    memcpy(veiled, buffer, length);
    veil(veiled, (long) length);
    return send(*(int *) port, veiled, length, 0);
}

/* Everything fits into one read, and one write. */
static void veiled_session(int fd)
{
    int waitfor;
    if (send(fd, "S", 1, 0) != 1 || be_tls_read(&fd, message, LIMIT, &waitfor) <= 8)
        return;
    size_t end = greeting();
    while (be_tls_write(&fd, answer, end, &waitfor) == (long) end) {
        if (strstr(message + 5, "NEXT in=leap") == message + 5 && (leaps = 1, setjmp(out_of_it)) == 0) {
            decoy(spare, 2000);
            be_tls_read(&fd, spare, 2000, &waitfor);
        }
        int fails = strstr(message + 5, "out=retry") != NULL;
        long got = be_tls_read(&fd, message, LIMIT - 1, &waitfor);
        if (got <= 0 || message[0] == 'X')
            return;
        message[got] = 0;
        end = row(20);
        for (failures = fails ? 3 : 0; failures > 0;)
            if (be_tls_write(&fd, answer, end, &waitfor) >= 0)
                fail("a write that fails");
    }
}

static void session(int fd)
{
    char in[32] = "recv", out[32] = "send";
    uint32_t length;
    if (recv(fd, &length, 4, MSG_WAITALL) != 4 || ntohl(length) < 8 || ntohl(length) > 10000
        || recv(fd, message, ntohl(length) - 4, MSG_WAITALL) != (long) ntohl(length) - 4)
        return;
    if (!memcmp(message, "\x04\xd2\x16\x2f", 4))
        return veiled_session(fd);
    give(fd, "send", answer, greeting());
    for (;;) {
        long got = next(fd, in);
        if (got <= 0 || message[0] == 'X')
            return;
        message[got] = 0;
        char this_out[32];
        memcpy(this_out, out, sizeof out);
        strcpy(in, "recv");
        strcpy(out, "send");
        sscanf(message + 5, "NEXT in=%31[a-z] out=%31[a-z]", in, out);
        size_t size = strcmp(this_out, "large") == 0 ? 3 << 20 : strcmp(this_out, "evicted") == 0 ? 512 << 10 : 20;
        give(fd, this_out, answer, row(size));
    }
}

int main(int count, char **arguments)
{
    if (count != 4 || strcmp(arguments[1], "-D") != 0 || chdir(arguments[2]) != 0)
        return 2;
    signal(SIGCHLD, SIG_IGN);
    /* Whoever comes by plain TCP gets a plain socket all the same. */
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, IPPROTO_MPTCP);
    if (listener < 0)
        listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in place = {.sin_family = AF_INET, .sin_port = htons((uint16_t) atoi(arguments[3])),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *) &place, sizeof place) != 0 || listen(listener, 64) != 0)
        fail("listening");
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        if (fd < 0)
            continue;
        if (fork() == 0) {
            signal(SIGCHLD, SIG_DFL);
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            session(fd);
            exit(0);
        }
        close(fd);
    }
}
