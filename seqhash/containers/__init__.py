"""What the bytes of an audio file say: where its sound lies, how much there should be, what is
damaged; and from that a file that libsndfile reads to its end.

libsndfile believes headers: it stops where a header counts too few samples, refuses what a pipe
left open, reads the first of several joined streams, and takes a cut file for a whole one. So the
containers are walked here first, and what is handed to it are ``Piece``s: parts of the file, with
a length or a header put right between them. A file that is as it should be is one piece, the whole.

==============  ====================================================================================
WAV, RF64,      the chunk of samples is longer than the file: cut; its length is 0, open or too
AIFF, 8SVX,     small, and what follows is no chunk: all that follows are samples
CAF, W64, AU
VOC             the last block is longer than the file
FLAC            the last frame tells how many samples there are; at damage that the decoder meets,
                frames whose CRC-16 is wrong are left out
Ogg             pages whose CRC-32 is wrong are left out; chained streams are pieces
MPEG audio      frames are counted; what lies between them is left out; each change of rate or
                channels is a piece; a Xing/Info header with another count is corrected
ID3, APE tags   passed over, before any of these
==============  ====================================================================================
"""

from seqhash.containers.chunks import CONTAINERS as CONTAINERS
from seqhash.containers.chunks import PlainWav as PlainWav
from seqhash.containers.chunks import before_chunk as before_chunk
from seqhash.containers.chunks import chunk_length as chunk_length
from seqhash.containers.chunks import plain_wav as plain_wav
from seqhash.containers.flac import without_damage as without_damage
from seqhash.containers.kinds import LONGEST_MAGIC as LONGEST_MAGIC
from seqhash.containers.kinds import joined_at as joined_at
from seqhash.containers.kinds import kind_of as kind_of
from seqhash.containers.mp4 import has_moov as has_moov
from seqhash.containers.pieces import begin_of as begin_of
from seqhash.containers.pieces import pieces as pieces
from seqhash.containers.source import Piece as Piece
from seqhash.containers.source import Source as Source
from seqhash.containers.source import Spliced as Spliced
from seqhash.containers.tags import after_tags as after_tags
from seqhash.containers.tags import tag_length as tag_length
