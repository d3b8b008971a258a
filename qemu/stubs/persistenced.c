/* TEST ONLY, never in a production image: a stand-in for nvidia-persistenced.
 *
 * Does what those who start it see of the real one: goes into the background once it is ready, leaves
 * /run/nvidia-persistenced/nvidia-persistenced.pid and stays until SIGTERM. Its options are not read.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static const char folder[] = "/run/nvidia-persistenced";
static const char pid_file[] = "/run/nvidia-persistenced/nvidia-persistenced.pid";

static volatile sig_atomic_t ended;

static void end(int number)
{
    (void)number;
    ended = 1;
}

int main(void)
{
    int ready[2];
    char byte;
    sigset_t held, none;
    if (pipe(ready))
        return 1;
    switch (fork()) {
    case -1:
        return 1;
    case 0:
        break;
    default: /* until the child's pid file is there */
        close(ready[1]);
        return read(ready[0], &byte, 1) == 1 ? 0 : 1;
    }
    setsid();
    sigemptyset(&none);
    sigemptyset(&held);
    sigaddset(&held, SIGTERM);
    sigprocmask(SIG_BLOCK, &held, NULL);
    signal(SIGTERM, end);
    mkdir(folder, 0755);
    FILE *file = fopen(pid_file, "w");
    if (!file || fprintf(file, "%d\n", (int)getpid()) < 0 || fclose(file))
        return 1;
    int null = open("/dev/null", O_RDWR);
    for (int number = 0; null >= 0 && number < 3; number++)
        dup2(null, number);
    if (chdir("/") || write(ready[1], "+", 1) != 1)
        return 1;
    close(ready[0]);
    close(ready[1]);
    while (!ended)
        sigsuspend(&none);
    unlink(pid_file);
    return 0;
}
