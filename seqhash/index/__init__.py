"""A collection on disk: the catalogue, what is added to it, and the answers it gives."""

from seqhash.index.catalogue import Collection as Collection
from seqhash.index.catalogue import Entry as Entry
from seqhash.index.catalogue import Identity as Identity
from seqhash.index.catalogue import Index as Index
from seqhash.index.catalogue import IndexFileError as IndexFileError
from seqhash.index.catalogue import Row as Row
from seqhash.index.catalogue import open_index as open_index
