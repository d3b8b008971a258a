/* What a container sees of itself, over HTTP on port 8080: the one program of the tests' images, linked with nothing.

   Without words, or with "serve": a server. "exit N" ends with N; "check FILE" with 0 if the file is there. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static char body[1 << 18];
static size_t length;

static void add(const char *text, size_t size)
{
    if (size > sizeof body - length)
        size = sizeof body - length;
    memcpy(body + length, text, size);
    length += size;
}

static void add_file(const char *path)
{
    char part[4096];
    int file = open(path, O_RDONLY);
    ssize_t got;
    if (file < 0) {
        add(strerror(errno), strlen(strerror(errno)));
        return;
    }
    while ((got = read(file, part, sizeof part)) > 0)
        add(part, got);
    if (got < 0)
        add(strerror(errno), strlen(strerror(errno)));
    close(file);
}

static void say(const char *text)
{
    add(text, strlen(text));
}

/* /connect/<address>/<port>: whether a TCP connection opens within two seconds */
static void try_connect(char *where)
{
    char *port = strchr(where, '/');
    struct sockaddr_in address = {.sin_family = AF_INET};
    int sock = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), error = 0;
    socklen_t size = sizeof error;
    if (!port)
        return;
    *port++ = 0;
    address.sin_port = htons(atoi(port));
    inet_pton(AF_INET, where, &address.sin_addr);
    if (connect(sock, (void *)&address, sizeof address) && errno != EINPROGRESS) {
        say(strerror(errno));
    } else {
        struct pollfd waits = {.fd = sock, .events = POLLOUT};
        if (poll(&waits, 1, 2000) <= 0)
            say("no answer");
        else if (getsockopt(sock, SOL_SOCKET, SO_ERROR, &error, &size) || error)
            say(strerror(error));
        else
            say("connected");
    }
    close(sock);
}

/* /via/<address>/<port>/<path>: what another one answers to that */
static void ask_via(char *where)
{
    char *port = strchr(where, '/'), *path, line[1024], part[4096];
    struct sockaddr_in address = {.sin_family = AF_INET};
    struct timeval patience = {.tv_sec = 10};
    int sock = socket(AF_INET, SOCK_STREAM, 0);
    ssize_t got;
    if (!port || !(path = strchr(port + 1, '/')))
        return;
    *port++ = 0;
    snprintf(line, sizeof line, "GET %s HTTP/1.0\r\n\r\n", path);
    address.sin_port = htons(atoi(port));
    inet_pton(AF_INET, where, &address.sin_addr);
    setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (connect(sock, (void *)&address, sizeof address) || write(sock, line, strlen(line)) < 0)
        say(strerror(errno));
    else
        while ((got = read(sock, part, sizeof part)) > 0)
            add(part, got);
    close(sock);
}

static void try_write(const char *path)
{
    int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0755);
    say(file < 0 || write(file, "x", 1) != 1 ? strerror(errno) : "written");
    if (file >= 0)
        close(file);
}

static void answer(char *path, int count, char **words)
{
    if (!strcmp(path, "/"))
        say("probe");
    else if (!strcmp(path, "/words"))
        for (int i = 0; i < count; i++)
            add(words[i], strlen(words[i]) + 1);
    else if (!strncmp(path, "/read/", 6))
        add_file(path + 5);
    else if (!strncmp(path, "/write/", 7))
        try_write(path + 6);
    else if (!strncmp(path, "/connect/", 9))
        try_connect(path + 9);
    else if (!strncmp(path, "/via/", 5))
        ask_via(path + 5);
    else
        say("unknown");
}

int main(int count, char **words)
{
    int port = 8080, one = 1, server;
    char *given = getenv("PORT");
    if (count > 2 && !strcmp(words[1], "exit"))
        return atoi(words[2]);
    if (given)
        port = atoi(given);
    if (count > 2 && !strcmp(words[1], "check"))   /* as a health check: is this file there? */
        return access(words[2], F_OK) != 0;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    signal(SIGPIPE, SIG_IGN);
    server = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(server, (void *)&address, sizeof address) || listen(server, 16))
        return 71;
    for (;;) {
        char request[4096], head[128], *path, *end;
        int client = accept(server, NULL, NULL);
        ssize_t got = 0, part;
        if (client < 0)
            continue;
        request[0] = 0;
        while (!strstr(request, "\r\n\r\n")) {
            part = read(client, request + got, sizeof request - 1 - got);
            if (part <= 0)
                break;
            got += part;
            request[got] = 0;
        }
        path = strchr(request, ' ');
        length = 0;
        if (path && (end = strchr(++path, ' '))) {
            *end = 0;
            if (!strncmp(path, "/exit/", 6))
                _exit(atoi(path + 6));
            answer(path, count, words);
        }
        snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n", length);
        if (write(client, head, strlen(head)) < 0 || write(client, body, length) < 0)
            (void)0;
        close(client);
    }
}
