/* TEST ONLY, never in a production image: libnvidia-ml.so.1 that forwards each call to the stub GPUs.
 *
 * qemu/gpu.py answers, and decides everything; this file only knows NVML's arguments (nvml.h of CUDA 12.4).
 * Numbers are little-endian:
 *
 *     request   u32 length | u32 tag | u32 device | u8 length of name | name | what the call was given
 *     answer    u32 length | u32 tag | u32 nvmlReturn_t | what the call gives
 *
 * The way there is one of the virtio ports `org.tinboot.gpu*`, each of which one process can hold at a time:
 * held from nvmlInit to nvmlShutdown, by one call after another. In a test without a guest it is the UNIX
 * socket in TINBOOT_STUB_GPU, and each further thread has a connection of its own, so that calls overlap.
 * Answers that a process did not live to read carry its tag, and are skipped.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define PORTS "/sys/class/virtio-ports"
#define NAME "org.tinboot.gpu"
#define WAIT_MS 2000
#define STEP_MS 20
#define REQUEST_LIMIT 256

enum {
    SUCCESS = 0,
    UNINITIALIZED = 1,
    INVALID_ARGUMENT = 2,
    INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9,
    ARGUMENT_VERSION_MISMATCH = 25,
    UNKNOWN = 999,
};

#define SETTINGS_V1 0x1000014u

typedef void *device_t; /* 1 for the first */

typedef struct {
    uint32_t environment, feature, devtools;
} state_t;

typedef struct {
    uint32_t version, environment, feature, devtools, multi_gpu;
} settings_t;

typedef struct {
    uint32_t chain_size, attestation_size;
    uint8_t chain[0x1000], attestation[0x1400];
} certificate_t;

typedef struct {
    uint32_t cec_present, size, cec_size;
    uint8_t nonce[32], report[0x2000], cec[0x1000];
} report_t;

typedef struct {
    char legacy[16];
    uint32_t domain, bus, device, id, subsystem;
    char text[32];
} pci_t;

_Static_assert(sizeof(state_t) == 12, "nvmlConfComputeSystemState_t");
_Static_assert(sizeof(settings_t) == 20, "nvmlSystemConfComputeSettings_v1_t");
_Static_assert(sizeof(certificate_t) == 9224, "nvmlConfComputeGpuCertificate_t");
_Static_assert(sizeof(report_t) == 12332, "nvmlConfComputeGpuAttestationReport_t");
_Static_assert(sizeof(pci_t) == 68, "nvmlPciInfo_t");

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int fd = -1;
static int users;
static pid_t owner;
static pthread_t first; /* the thread that began */
static _Atomic uint32_t tag;
static pthread_key_t own_ways; /* of further threads: the descriptor, and 1 */
static pthread_once_t own_ways_made = PTHREAD_ONCE_INIT;

/* --- the way to the host --------------------------------------------------------------------------- */

static int open_socket(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    if (strlen(path) >= sizeof address.sun_path)
        return -1;
    strcpy(address.sun_path, path);
    int made = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (made >= 0 && connect(made, (struct sockaddr *)&address, sizeof address)) {
        close(made);
        return -1;
    }
    return made;
}

/* The first port of ours that nobody holds, or -1. */
static int open_free_port(void)
{
    DIR *folder = opendir(PORTS);
    struct dirent *entry;
    int made = -1;
    if (!folder)
        return -1;
    while (made < 0 && (entry = readdir(folder))) {
        char path[sizeof PORTS + sizeof entry->d_name + 8], name[64] = "";
        snprintf(path, sizeof path, PORTS "/%s/name", entry->d_name);
        FILE *file = fopen(path, "re");
        if (!file)
            continue;
        if (fgets(name, sizeof name, file) && !strncmp(name, NAME, sizeof NAME - 1)) {
            snprintf(path, sizeof path, "/dev/%s", entry->d_name);
            made = open(path, O_RDWR | O_CLOEXEC);
        }
        fclose(file);
    }
    closedir(folder);
    return made;
}

static int open_host(void)
{
    const char *path = getenv("TINBOOT_STUB_GPU");
    if (path)
        return open_socket(path);
    for (int waited = 0;; waited += STEP_MS) {
        int made = open_free_port();
        if (made >= 0 || waited >= WAIT_MS)
            return made;
        usleep(STEP_MS * 1000);
    }
}

static int read_all(int fd, void *buffer, size_t size)
{
    char *at = buffer;
    while (size) {
        ssize_t got = read(fd, at, size);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return -1;
        at += got;
        size -= (size_t)got;
    }
    return 0;
}

static int write_all(int fd, const void *buffer, size_t size)
{
    const char *at = buffer;
    while (size) {
        ssize_t put = write(fd, at, size);
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return -1;
        at += put;
        size -= (size_t)put;
    }
    return 0;
}

static int skip(int fd, uint32_t size)
{
    char scrap[256];
    while (size) {
        uint32_t part = size < sizeof scrap ? size : sizeof scrap;
        if (read_all(fd, scrap, part))
            return -1;
        size -= part;
    }
    return 0;
}

/* Nobody else uses `fd` meanwhile. At most `capacity` bytes of the answer go to `out`; `*size` is how many it
 * has. */
static int ask(int fd, const char *name, device_t device, const void *in, uint32_t in_size,
               void *out, uint32_t capacity, uint32_t *size)
{
    uint8_t request[REQUEST_LIMIT];
    uint8_t name_size = (uint8_t)strlen(name);
    uint32_t own = ++tag, words[3] = { 9u + name_size + in_size, own, (uint32_t)(uintptr_t)device };
    if (sizeof words + 1 + name_size + in_size > sizeof request)
        return INVALID_ARGUMENT;
    memcpy(request, words, sizeof words);
    request[sizeof words] = name_size;
    memcpy(request + sizeof words + 1, name, name_size);
    if (in_size)
        memcpy(request + sizeof words + 1 + name_size, in, in_size);
    if (write_all(fd, request, sizeof words + 1 + name_size + in_size))
        return UNKNOWN;
    for (;;) {
        if (read_all(fd, words, sizeof words) || words[0] < 8)
            return UNKNOWN;
        uint32_t rest = words[0] - 8;
        if (words[1] != own) {
            if (skip(fd, rest))
                return UNKNOWN;
            continue;
        }
        uint32_t kept = rest < capacity ? rest : capacity;
        *size = rest;
        if ((kept && read_all(fd, out, kept)) || skip(fd, rest - kept))
            return UNKNOWN;
        return (int)words[2];
    }
}

static void close_own_way(void *kept)
{
    close((int)(intptr_t)kept - 1);
}

static void make_own_ways(void)
{
    pthread_key_create(&own_ways, close_own_way);
}

/* This thread's connection, which ends with it; or -1. */
static int own_way(void)
{
    pthread_once(&own_ways_made, make_own_ways);
    intptr_t kept = (intptr_t)pthread_getspecific(own_ways);
    if (!kept) {
        kept = open_socket(getenv("TINBOOT_STUB_GPU")) + 1;
        pthread_setspecific(own_ways, (void *)kept);
    }
    return (int)kept - 1;
}

static int call(const char *name, device_t device, const void *in, uint32_t in_size, void *out,
                uint32_t capacity, uint32_t *size)
{
    pthread_mutex_lock(&lock);
    int result = UNINITIALIZED, begun = fd >= 0 && owner == getpid();
    int further = begun && getenv("TINBOOT_STUB_GPU") && !pthread_equal(pthread_self(), first);
    if (begun && !further)
        result = ask(fd, name, device, in, in_size, out, capacity, size);
    pthread_mutex_unlock(&lock);
    if (further) {
        int own = own_way();
        result = own < 0 ? UNKNOWN : ask(own, name, device, in, in_size, out, capacity, size);
    }
    return result;
}

/* A call that gives exactly `size` bytes, or an error. */
static int get(const char *name, device_t device, const void *in, uint32_t in_size, void *out, uint32_t size)
{
    uint32_t got = 0;
    if (!out && size)
        return INVALID_ARGUMENT;
    void *whole = size ? malloc(size) : NULL;
    if (size && !whole)
        return UNKNOWN;
    int result = call(name, device, in, in_size, whole, size, &got);
    if (result == SUCCESS && got != size)
        result = UNKNOWN;
    if (result == SUCCESS && size)
        memcpy(out, whole, size);
    free(whole);
    return result;
}

static int get_text(const char *name, device_t device, char *buffer, unsigned room)
{
    char text[256];
    uint32_t got = 0;
    if (!buffer)
        return INVALID_ARGUMENT;
    int result = call(name, device, NULL, 0, text, sizeof text, &got);
    if (result != SUCCESS)
        return result;
    if (got > sizeof text || got >= room)
        return INSUFFICIENT_SIZE;
    memcpy(buffer, text, got);
    buffer[got] = 0;
    return SUCCESS;
}

/* --- NVML ------------------------------------------------------------------------------------------ */

static int init(const char *name)
{
    uint32_t got;
    int result = SUCCESS;
    pthread_mutex_lock(&lock);
    if (owner != getpid()) { /* the parent's, after a fork */
        if (fd >= 0)
            close(fd);
        fd = -1;
        users = 0;
        owner = getpid();
        first = pthread_self();
        tag = (uint32_t)owner << 12;
    }
    if (fd < 0)
        fd = open_host();
    if (fd < 0)
        result = DRIVER_NOT_LOADED;
    else
        result = ask(fd, name, NULL, NULL, 0, NULL, 0, &got);
    if (result == SUCCESS)
        users++;
    else if (!users && fd >= 0) {
        close(fd);
        fd = -1;
    }
    pthread_mutex_unlock(&lock);
    return result;
}

int nvmlInitWithFlags(unsigned flags)
{
    (void)flags;
    return init(__func__);
}

int nvmlInit_v2(void)
{
    return init(__func__);
}

int nvmlInit(void)
{
    return init(__func__);
}

int nvmlShutdown(void)
{
    uint32_t got;
    int result = UNINITIALIZED;
    pthread_mutex_lock(&lock);
    if (fd >= 0 && owner == getpid() && users) {
        result = ask(fd, __func__, NULL, NULL, 0, NULL, 0, &got);
        if (!--users) {
            close(fd);
            fd = -1;
        }
    }
    pthread_mutex_unlock(&lock);
    return result;
}

const char *nvmlErrorString(int result)
{
    switch (result) {
    case SUCCESS:
        return "Success";
    case UNINITIALIZED:
        return "Uninitialized";
    case INVALID_ARGUMENT:
        return "Invalid Argument";
    case INSUFFICIENT_SIZE:
        return "Insufficient Size";
    case DRIVER_NOT_LOADED:
        return "Driver Not Loaded";
    case ARGUMENT_VERSION_MISMATCH:
        return "Argument version mismatch";
    default:
        return "Unknown Error";
    }
}

int nvmlSystemGetDriverVersion(char *version, unsigned length)
{
    return get_text(__func__, NULL, version, length);
}

int nvmlDeviceGetCount_v2(unsigned *count)
{
    return get(__func__, NULL, NULL, 0, count, sizeof *count);
}

int nvmlDeviceGetCount(unsigned *count)
{
    return get(__func__, NULL, NULL, 0, count, sizeof *count);
}

static int by_index(const char *name, unsigned index, device_t *device)
{
    uint32_t number = 0;
    int result = get(name, NULL, &index, sizeof index, &number, sizeof number);
    if (result == SUCCESS)
        *device = (device_t)(uintptr_t)number;
    return result;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, device_t *device)
{
    return by_index(__func__, index, device);
}

int nvmlDeviceGetHandleByIndex(unsigned index, device_t *device)
{
    return by_index(__func__, index, device);
}

int nvmlDeviceGetName(device_t device, char *name, unsigned length)
{
    return get_text(__func__, device, name, length);
}

int nvmlDeviceGetUUID(device_t device, char *uuid, unsigned length)
{
    return get_text(__func__, device, uuid, length);
}

int nvmlDeviceGetBoardId(device_t device, unsigned *board)
{
    return get(__func__, device, NULL, 0, board, sizeof *board);
}

int nvmlDeviceGetArchitecture(device_t device, unsigned *architecture)
{
    return get(__func__, device, NULL, 0, architecture, sizeof *architecture);
}

int nvmlDeviceGetPersistenceMode(device_t device, unsigned *mode)
{
    return get(__func__, device, NULL, 0, mode, sizeof *mode);
}

int nvmlDeviceGetVbiosVersion(device_t device, char *version, unsigned length)
{
    return get_text(__func__, device, version, length);
}

int nvmlDeviceGetPciInfo_v3(device_t device, pci_t *pci)
{
    return get(__func__, device, NULL, 0, pci, sizeof *pci);
}

int nvmlDeviceGetConfComputeGpuCertificate(device_t device, certificate_t *certificate)
{
    return get(__func__, device, NULL, 0, certificate, sizeof *certificate);
}

int nvmlDeviceGetConfComputeGpuAttestationReport(device_t device, report_t *report)
{
    if (!report)
        return INVALID_ARGUMENT;
    return get(__func__, device, report->nonce, sizeof report->nonce, report, sizeof *report);
}

int nvmlSystemGetConfComputeState(state_t *state)
{
    return get(__func__, NULL, NULL, 0, state, sizeof *state);
}

int nvmlSystemGetConfComputeSettings(settings_t *settings)
{
    if (!settings)
        return INVALID_ARGUMENT;
    if (settings->version != SETTINGS_V1)
        return ARGUMENT_VERSION_MISMATCH;
    return get(__func__, NULL, NULL, 0, settings, sizeof *settings);
}

int nvmlSystemSetConfComputeGpusReadyState(unsigned accepting)
{
    return get(__func__, NULL, &accepting, sizeof accepting, NULL, 0);
}

int nvmlSystemGetConfComputeGpusReadyState(unsigned *accepting)
{
    return get(__func__, NULL, NULL, 0, accepting, sizeof *accepting);
}
