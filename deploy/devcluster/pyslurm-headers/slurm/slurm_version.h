/*
 * pyslurm's setup.py reads this file as text and refuses any release but the one it was written for; the compiler
 * takes the version from Slurm's own header.
 */
#include_next <slurm/slurm_version.h>
#ifdef READ_BY_SETUP_PY_ONLY
#define SLURM_VERSION_NUMBER 0x190b00
#endif
