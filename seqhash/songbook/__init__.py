"""The built-in corpus: public-domain works in several arrangements, synthesised by the package."""

from seqhash.songbook.book import COLUMNS as COLUMNS
from seqhash.songbook.book import SAMPLE_RATE as SAMPLE_RATE
from seqhash.songbook.book import VERSIONS as VERSIONS
from seqhash.songbook.book import arrangements as arrangements
from seqhash.songbook.book import render as render
from seqhash.songbook.book import works as works
from seqhash.songbook.book import write as write
