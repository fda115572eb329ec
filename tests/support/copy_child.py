"""See fork_server.py: the copy job."""

from copy_job import PLACES, main
from fork_server import serve

if __name__ == "__main__":
    serve(main, PLACES)
