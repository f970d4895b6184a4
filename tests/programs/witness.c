/* A client that writes down what it really is.
 *
 * usage: PROGRAM WORD...   Each word is one step, done in order:
 *
 *   fork             the child goes on, this process waits for it
 *   orphan           the child goes on, this process ends at once
 *   uid N            become user and group N without running another program
 *   login N          set the audit login uid
 *   enter FOLDER     move into a cgroup
 *   space MAX        a pid namespace of its own, with so many pids if MAX is not 0; its first process goes on
 *   as PID           a child with this very pid goes on, this process waits for it (clone3(2), set_tid)
 *   connect          write down what this process is, then connect
 *   say N, ask N     N statements by the simple, by the extended protocol
 *   shout N          N statements at once, and no wait for any answer
 *   exec PATH        another program goes on, with the connection if there is one
 *   send PATH        another process goes on, which gets the connection over the Unix socket PATH
 *   receive PATH     this is that other process
 *   sleep MS         wait
 *   await PATH       wait until a file is there
 *   repeat N K       N runs of the rest, each a process of its own running this program, K at a time
 *   title TEXT       change the name of the task
 *
 * Settings come from the environment: PGHOST (an address, or the folder of a Unix socket), PGPORT, PGUSER,
 * PGDATABASE; JOURNAL, the file that lines are appended to; CASE, a name for what this is; HOST_PROC, the host's
 * /proc, where there is another one at /proc.
 *
 * At its end it appends one line for its connection: what the connecting process was at connect(2), what process had
 * the last word, and how many statements were answered. Every statement carries the line's mark as a comment.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char facts[2048], mark[128];
static int connection = -1, journal = -1;
static unsigned backend, said, started;
static char **words;

static const char *setting(const char *name, const char *otherwise)
{
	const char *value = getenv(name);
	return value ? value : otherwise;
}

static void note(const char *form, ...) __attribute__((format(printf, 1, 2)));

static void note(const char *form, ...)
{
	char line[4096];
	va_list list;
	va_start(list, form);
	int length = vsnprintf(line, sizeof line, form, list);
	va_end(list);
	/* One write of one line: those of other processes do not mix with it (O_APPEND). */
	if (length < 0 || length >= (int)sizeof line || write(journal, line, length) != length)
		_exit(90);
}

static void fail(const char *what)
{
	int problem = errno;
	if (journal >= 0)
		note("{\"case\":\"%s\",\"error\":\"%s: %s\"}\n", setting("CASE", ""), what, strerror(problem));
	fprintf(stderr, "%s: %s\n", what, strerror(problem));
	_exit(1);
}

static const char *next(void)
{
	if (!*words) {
		errno = EINVAL;
		fail("a word is missing");
	}
	return *words++;
}

static size_t text_of(const char *file, char *into, size_t size)
{
	char path[256];
	snprintf(path, sizeof path, "%s/self/%s", setting("HOST_PROC", "/proc"), file);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		fail(path);
	ssize_t length = read(fd, into, size - 1);
	if (length < 0)
		fail(path);
	close(fd);
	into[length] = 0;
	return length;
}

static void link_of(const char *file, char *into, size_t size)
{
	char path[256];
	snprintf(path, sizeof path, "%s/%s", setting("HOST_PROC", "/proc"), file);
	ssize_t length = readlink(path, into, size - 1);
	if (length < 0)
		fail(path);
	into[length] = 0;
}

/* What this process is, by the host's own words about it. */
static void what_am_i(char *into, size_t size)
{
	char pid[32], exe[512], text[4096], pid_space[64], net_space[64], group[1024] = "", login[32];
	link_of("self", pid, sizeof pid);
	link_of("self/exe", exe, sizeof exe);
	link_of("self/ns/pid", pid_space, sizeof pid_space);
	link_of("self/ns/net", net_space, sizeof net_space);
	text_of("loginuid", login, sizeof login);
	login[strcspn(login, "\n")] = 0;
	text_of("cgroup", text, sizeof text);
	for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
		if (!strncmp(line, "0::", 3))
			snprintf(group, sizeof group, "%s", line + 3);
	text_of("stat", text, sizeof text);
	/* proc(5): the name stands in parentheses and may hold anything; the start is the 20th field behind it. */
	char *field = strrchr(text, ')');
	for (int i = 0; field && i < 20; i++)
		field = strchr(field + 1, ' ');
	if (!field)
		fail("stat");
	snprintf(into, size,
		 "{\"pid\":%s,\"ticks\":%llu,\"exe\":\"%s\",\"uid\":%u,\"login_uid\":%s,\"cgroup\":\"%s\","
		 "\"pid_namespace\":%s,\"net_namespace\":%s,\"own_pid\":%d}",
		 pid, strtoull(field, NULL, 10), exe, getuid(), login, group,
		 strtok(strchr(pid_space, '[') + 1, "]"), strtok(strchr(net_space, '[') + 1, "]"), getpid());
}

static void connect_now(void)
{
	const char *host = setting("PGHOST", "127.0.0.1");
	int port = atoi(setting("PGPORT", "5432"));
	union {
		struct sockaddr any;
		struct sockaddr_un un;
		struct sockaddr_in in;
	} to = {0};
	socklen_t size;
	if (*host == '/') {
		to.un.sun_family = AF_UNIX;
		snprintf(to.un.sun_path, sizeof to.un.sun_path, "%s/.s.PGSQL.%d", host, port);
		size = sizeof to.un;
	} else {
		to.in.sin_family = AF_INET;
		to.in.sin_port = htons(port);
		if (inet_pton(AF_INET, host, &to.in.sin_addr) != 1)
			fail("PGHOST");
		size = sizeof to.in;
	}
	what_am_i(facts, sizeof facts);
	struct timespec now;
	clock_gettime(CLOCK_BOOTTIME, &now);
	snprintf(mark, sizeof mark, "%s.%ld.%d", setting("CASE", "none"), now.tv_sec * 1000000000L + now.tv_nsec,
		 getpid());
	connection = socket(to.any.sa_family, SOCK_STREAM, 0);
	if (connection < 0)
		fail("socket");
	/* A Unix socket whose backlog is full refuses at once (unix(7)): try again for a while. */
	for (int i = 0; connect(connection, &to.any, size); i++) {
		if ((errno != EAGAIN && errno != ECONNREFUSED) || i > 2000)
			fail("connect");
		usleep(5000);
	}
}

static void put(const void *bytes, size_t length)
{
	for (const char *at = bytes; length;) {
		ssize_t done = send(connection, at, length, MSG_NOSIGNAL);
		if (done <= 0)
			fail("sending");
		at += done;
		length -= done;
	}
}

static void get(void *bytes, size_t length)
{
	for (char *at = bytes; length;) {
		ssize_t done = recv(connection, at, length, 0);
		if (done == 0)
			errno = ECONNRESET;
		if (done <= 0)
			fail("receiving");
		at += done;
		length -= done;
	}
}

/* Reads up to ReadyForQuery. */
static void ready(void)
{
	static char body[1 << 16];
	for (;;) {
		unsigned char kind;
		uint32_t length;
		get(&kind, 1);
		get(&length, 4);
		length = ntohl(length) - 4;
		if (length >= sizeof body) {
			errno = EMSGSIZE;
			fail("an answer");
		}
		get(body, length);
		body[length] = 0;
		if (kind == 'K') {
			memcpy(&backend, body, 4);
			backend = ntohl(backend);
		}
		if (kind == 'E') {
			for (char *at = body; *at; at += strlen(at) + 1)
				if (*at == 'M')
					fprintf(stderr, "%s\n", at + 1);
			errno = EPROTO;
			fail("the server");
		}
		if (kind == 'R' && memcmp(body, "\0\0\0\0", 4)) {
			errno = EACCES;
			fail("a password is wanted");
		}
		if (kind == 'Z')
			return;
	}
}

/* `kind` 0 is the startup packet, which has none. */
static void message(char kind, const char *body, size_t length)
{
	char whole[2048];
	uint32_t size = htonl(length + 4);
	whole[0] = kind;
	memcpy(whole + 1, &size, 4);
	memcpy(whole + 5, body, length);
	put(kind ? whole : whole + 1, kind ? length + 5 : length + 4);
}

static void startup(int wait)
{
	char body[512] = "\0\3\0\0";
	size_t length = 4;
	const char *pairs[] = {"user", setting("PGUSER", ""), "database", setting("PGDATABASE", "")};
	for (int i = 0; i < 4; i++)
		length += snprintf(body + length, sizeof body - length, "%s", pairs[i]) + 1;
	body[length++] = 0;
	message(0, body, length);
	if (wait)
		ready();
	started = 1;
}

/* By the simple ('s') or the extended protocol ('e'), or without waiting ('S'). */
static void speak(unsigned count, char how)
{
	char text[512];
	if (!started)
		startup(how != 'S');
	while (count--) {
		size_t length = snprintf(text, sizeof text, "SELECT %u /* mark=%s */", said, mark) + 1;
		if (how == 'e') {
			char parse[600] = {0};
			memcpy(parse + 1, text, length);
			message('P', parse, length + 3);
			message('B', "\0\0\0\0\0\0\0\0", 8);
			message('E', "\0\0\0\0\0", 5);
			message('S', "", 0);
		} else {
			message('Q', text, length);
		}
		if (how != 'S')
			ready();
		said++;
	}
}

/* The parent of whoever goes on ends as that one does. */
static void wait_for(pid_t child)
{
	int status;
	if (child < 0)
		fail("fork");
	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			fail("waitpid");
	_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 2);
}

static void go_on_as(pid_t pid)
{
	struct clone_args arguments = {.exit_signal = SIGCHLD, .set_tid = (uint64_t)&pid, .set_tid_size = 1};
	for (int i = 0;; i++) {
		pid_t child = syscall(SYS_clone3, &arguments, sizeof arguments);
		if (child == 0)
			return;
		if (child > 0)
			wait_for(child);
		if (errno != EEXIST || i > 200000)
			fail("clone3");
		usleep(50);
	}
}

static void own_space(unsigned most)
{
	if (unshare(CLONE_NEWPID))
		fail("unshare");
	pid_t child = fork();
	if (child)
		wait_for(child);
	if (!most)
		return;
	/* Who writes decides whose limit it is (since Linux 6.14). */
	char text[16];
	int fd = open("/proc/sys/kernel/pid_max", O_WRONLY | O_CLOEXEC);
	int length = snprintf(text, sizeof text, "%u", most);
	if (fd < 0 || write(fd, text, length) != length)
		fail("pid_max");
	close(fd);
}

static void go_on_by(const char *program)
{
	char number[4][32];
	*--words = (char *)program;
	if (connection < 0) {
		execv(program, words);
		fail(program);
	}
	snprintf(number[0], 32, "%d", connection);
	snprintf(number[1], 32, "%u", backend);
	snprintf(number[2], 32, "%u", said);
	snprintf(number[3], 32, "%u", started);
	setenv("WITNESS_CONNECTION", number[0], 1);
	setenv("WITNESS_BACKEND", number[1], 1);
	setenv("WITNESS_SAID", number[2], 1);
	setenv("WITNESS_STARTED", number[3], 1);
	setenv("WITNESS_FACTS", facts, 1);
	setenv("WITNESS_MARK", mark, 1);
	execv(program, words);
	fail(program);
}

static void go_on_after_exec(void)
{
	if (!getenv("WITNESS_CONNECTION"))
		return;
	connection = atoi(getenv("WITNESS_CONNECTION"));
	backend = atoi(setting("WITNESS_BACKEND", "0"));
	said = atoi(setting("WITNESS_SAID", "0"));
	started = atoi(setting("WITNESS_STARTED", "0"));
	snprintf(facts, sizeof facts, "%s", setting("WITNESS_FACTS", ""));
	snprintf(mark, sizeof mark, "%s", setting("WITNESS_MARK", ""));
}

struct handover {
	char facts[sizeof facts], mark[sizeof mark];
	unsigned backend, said, started;
};

static struct sockaddr_un place(const char *path)
{
	struct sockaddr_un place = {.sun_family = AF_UNIX};
	snprintf(place.sun_path, sizeof place.sun_path, "%s", path);
	return place;
}

static void hand_over(const char *path)
{
	struct sockaddr_un to = place(path);
	int way = socket(AF_UNIX, SOCK_STREAM, 0);
	for (int i = 0; connect(way, (struct sockaddr *)&to, sizeof to); i++) {
		if (i > 2000)
			fail(path);
		usleep(5000);
	}
	struct handover what = {.backend = backend, .said = said, .started = started};
	memcpy(what.facts, facts, sizeof facts);
	memcpy(what.mark, mark, sizeof mark);
	char room[CMSG_SPACE(sizeof connection)] = {0};
	struct iovec piece = {&what, sizeof what};
	struct msghdr head = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
	struct cmsghdr *part = CMSG_FIRSTHDR(&head);
	part->cmsg_level = SOL_SOCKET;
	part->cmsg_type = SCM_RIGHTS;
	part->cmsg_len = CMSG_LEN(sizeof connection);
	memcpy(CMSG_DATA(part), &connection, sizeof connection);
	if (sendmsg(way, &head, 0) != sizeof what)
		fail("sendmsg");
	/* Until it was taken, and no longer. */
	char taken;
	if (read(way, &taken, 1) != 1)
		fail("the other process");
	_exit(0);
}

static void take_over(const char *path)
{
	struct sockaddr_un at = place(path);
	int door = socket(AF_UNIX, SOCK_STREAM, 0);
	if (bind(door, (struct sockaddr *)&at, sizeof at) || chmod(path, 0777) || listen(door, 16))
		fail(path);
	int way = accept(door, NULL, NULL);
	struct handover what;
	char room[CMSG_SPACE(sizeof connection)] = {0};
	struct iovec piece = {&what, sizeof what};
	struct msghdr head = {.msg_iov = &piece, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
	if (way < 0 || recvmsg(way, &head, MSG_WAITALL) != sizeof what || !CMSG_FIRSTHDR(&head))
		fail("recvmsg");
	memcpy(&connection, CMSG_DATA(CMSG_FIRSTHDR(&head)), sizeof connection);
	memcpy(facts, what.facts, sizeof facts);
	memcpy(mark, what.mark, sizeof mark);
	backend = what.backend, said = what.said, started = what.started;
	if (write(way, "!", 1) != 1)
		fail("the other process");
	close(way);
}

static void repeat(unsigned count, unsigned at_once, char *program)
{
	unsigned running = 0, failed = 0;
	int status;
	while (count || running) {
		if (count && running < at_once) {
			pid_t child = fork();
			if (child < 0)
				fail("fork");
			if (!child) {
				*--words = program;
				execv(program, words);
				fail(program);
			}
			count--, running++;
			continue;
		}
		if (wait(&status) > 0) {
			running--;
			failed += status != 0;
		}
	}
	_exit(failed ? 1 : 0);
}

static void step(const char *word, char *program)
{
	if (!strcmp(word, "fork")) {
		pid_t child = fork();
		if (child)
			wait_for(child);
	} else if (!strcmp(word, "orphan")) {
		pid_t child = fork();
		if (child < 0)
			fail("fork");
		if (child)
			_exit(0);
	} else if (!strcmp(word, "uid")) {
		unsigned id = atoi(next());
		if (setresgid(id, id, id) || setresuid(id, id, id))
			fail("setresuid");
		/* Else its own files under /proc would be root's (proc(5)). */
		prctl(PR_SET_DUMPABLE, 1);
	} else if (!strcmp(word, "login")) {
		const char *id = next();
		int fd = open("/proc/self/loginuid", O_WRONLY | O_CLOEXEC);
		if (fd < 0 || write(fd, id, strlen(id)) < 0)
			fail("loginuid");
		close(fd);
	} else if (!strcmp(word, "enter")) {
		char path[1024];
		snprintf(path, sizeof path, "%s/cgroup.procs", next());
		int fd = open(path, O_WRONLY | O_CLOEXEC);
		if (fd < 0 || write(fd, "0", 1) != 1)
			fail(path);
		close(fd);
	} else if (!strcmp(word, "space")) {
		own_space(atoi(next()));
	} else if (!strcmp(word, "as")) {
		go_on_as(atoi(next()));
	} else if (!strcmp(word, "connect")) {
		connect_now();
	} else if (!strcmp(word, "say")) {
		speak(atoi(next()), 's');
	} else if (!strcmp(word, "ask")) {
		speak(atoi(next()), 'e');
	} else if (!strcmp(word, "shout")) {
		speak(atoi(next()), 'S');
	} else if (!strcmp(word, "exec")) {
		go_on_by(next());
	} else if (!strcmp(word, "send")) {
		hand_over(next());
	} else if (!strcmp(word, "receive")) {
		take_over(next());
	} else if (!strcmp(word, "sleep")) {
		usleep(atoi(next()) * 1000);
	} else if (!strcmp(word, "await")) {
		const char *path = next();
		while (access(path, F_OK))
			usleep(5000);
	} else if (!strcmp(word, "repeat")) {
		unsigned count = atoi(next());
		repeat(count, atoi(next()), program);
	} else if (!strcmp(word, "title")) {
		prctl(PR_SET_NAME, next());
	} else {
		errno = EINVAL;
		fail(word);
	}
}

int main(int count, char **arguments)
{
	(void)count;
	words = arguments + 1;
	struct timespec born, dies;
	clock_gettime(CLOCK_MONOTONIC, &born);
	journal = open(setting("JOURNAL", "/dev/null"), O_WRONLY | O_APPEND | O_CLOEXEC);
	if (journal < 0)
		fail("the journal");
	go_on_after_exec();
	while (*words)
		step(next(), arguments[0]);
	if (connection >= 0) {
		char speaker[2048];
		what_am_i(speaker, sizeof speaker);
		clock_gettime(CLOCK_MONOTONIC, &dies);
		note("{\"case\":\"%s\",\"mark\":\"%s\",\"backend\":%u,\"said\":%u,\"life_us\":%ld,\"client\":%s,"
		     "\"speaker\":%s}\n",
		     setting("CASE", ""), mark, backend, said,
		     (dies.tv_sec - born.tv_sec) * 1000000 + (dies.tv_nsec - born.tv_nsec) / 1000, facts, speaker);
		/* Terminate. The server may have been faster. */
		send(connection, "X\0\0\0\4", 5, MSG_NOSIGNAL);
		close(connection);
	}
	return 0;
}
