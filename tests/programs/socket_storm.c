/* For a number of seconds, on each processor: connections are begun and refused as fast as can be, while others, which
 * nobody answers, are given up by the kernel's timers. Both change the state of a socket; now and then the timer does so
 * in the middle of the other, on the same processor, so that whatever program hangs there would have to run inside itself.
 *
 * usage: socket_storm SECONDS
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { WAITING = 2000, ROUND = 64, LOOKED_AT = 8 };

static int listening(struct sockaddr_in *place)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    socklen_t size = sizeof *place;
    *place = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (fd < 0 || bind(fd, (struct sockaddr *) place, size) != 0 || listen(fd, 0) != 0
        || getsockname(fd, (struct sockaddr *) place, &size) != 0)
        exit(1);
    return fd;
}

static int begun(const struct sockaddr_in *place)
{
    int once = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (fd < 0)
        exit(1);
    setsockopt(fd, IPPROTO_TCP, TCP_SYNCNT, &once, sizeof once);
    (void) !connect(fd, (const struct sockaddr *) place, sizeof *place);
    return fd;
}

static void storm(int processor, time_t until)
{
    static int waiting[WAITING];
    struct sockaddr_in full, closed;
    cpu_set_t only;
    CPU_ZERO(&only);
    CPU_SET(processor, &only);
    if (sched_setaffinity(0, sizeof only, &only) != 0)
        exit(1);
    /* Its queue is full at once, and then it answers nobody. */
    listening(&full);
    close(listening(&closed));
    for (int i = 0; i < WAITING; i++)
        waiting[i] = begun(&full);
    for (int at = 0; time(NULL) < until;) {
        for (int i = 0; i < ROUND; i++) {
            int fd = socket(AF_INET, SOCK_STREAM, 0);
            (void) !connect(fd, (struct sockaddr *) &closed, sizeof closed);
            close(fd);
        }
        for (int i = 0; i < LOOKED_AT; i++) {
            int error = 0;
            socklen_t size = sizeof error;
            at = (at + 1) % WAITING;
            getsockopt(waiting[at], SOL_SOCKET, SO_ERROR, &error, &size);
            if (error != 0) {
                close(waiting[at]);
                waiting[at] = begun(&full);
            }
        }
    }
    exit(0);
}

int main(int count, char **arguments)
{
    struct rlimit room = {8192, 8192};
    if (count != 2 || setrlimit(RLIMIT_NOFILE, &room) != 0)
        return 2;
    time_t until = time(NULL) + atoi(arguments[1]);
    int processors = (int) sysconf(_SC_NPROCESSORS_ONLN), status, failed = 0;
    for (int processor = 0; processor < processors; processor++)
        if (fork() == 0)
            storm(processor, until);
    while (wait(&status) > 0)
        failed |= status != 0;
    return failed;
}
