/* `remora node`: from the command line to a running node and back. */
#ifndef NODE_NODE_MAIN_H
#define NODE_NODE_MAIN_H

/* argv[0] is the verb itself. Returns the process's exit code: 0 after a clean stop, 1 (it could not start,
 * or something was left uncommitted), 2 (a flag or setting is wrong), 5 (no space), 6 (the port or the data directory is in use),
 * 7 (the key or the directory may not be read). Messages go to standard error. */
int node_main(int argc, char **argv);

#endif
