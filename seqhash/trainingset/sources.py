"""Which files of which Debian packages may be trained on, by whom they are and under which licence.

Licences are as each package's own files state them for these very files (usr/share/doc/*/copyright
and, where named, lists of authors beside the audio). What is under a share-alike or GPL licence,
or under one that nobody states, is not here; of a choice of licences the permissive one is named.
"""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

PERMISSIVE = ("CC0 1.0", "public domain", "CC BY 3.0", "MIT", "BSD-3-Clause")
USES = ("music", "midi", "soundfont", "noise", "speech")


class Source(NamedTuple):
    """Some files of one package, which share an author and a licence."""

    package: str
    folder: str  # in the package; an archive on the way is a folder too
    names: tuple[str, ...]  # of files in the folder and below it, with *, ? and [] as in a shell
    use: str  # one of USES
    licence: str  # one of PERMISSIVE
    author: str

    def holds(self, path: str) -> bool:
        """Whether a path in the package is one of these files."""
        inside = path.removeprefix(f"{self.folder}/")
        return inside != path and any(fnmatchcase(inside, name) for name in self.names)


_CLONK = "usr/share/games/openclonk"
_NAEV = "usr/share/naev/dat/snd/music"
_UFO = "usr/share/games/ufoai/base/0music.pk3/music"
_SONIC_PI = "usr/share/sonic-pi/samples"


def _names(text: str, suffix: str) -> tuple[str, ...]:
    return tuple(name + suffix for name in text.split())


SOURCES = (
    # Music.ocg/authors.txt: CC BY 3.0 where not stated otherwise
    Source(
        "openclonk-data",
        f"{_CLONK}/Music.ocg",
        ("*.ogg",),
        "music",
        "CC BY 3.0",
        "K-Pone and OpenClonk contributors",
    ),
    # SOUND_LICENSE.yaml: "GPLv3 / CC-by 3"
    Source(
        "naev-data",
        _NAEV,
        _names(
            "ambient1 ambient2 ambient2_5 ambient3 automat battlesomething1 battlesomething2 "
            "collective1 collective2 empire1 empire2 flf_battle1 intrigue intro landing_sinister "
            "nebu_battle1 nebu_battle2 sirius1 tension upbeat zalek1 zalek2",
            ".ogg",
        ),
        "music",
        "CC BY 3.0",
        "Nikola Whallon",
    ),
    Source(
        "naev-data",
        _NAEV,
        _names("ambiphonic void_sensor", ".ogg"),
        "music",
        "CC BY 3.0",
        "Zeropage",
    ),
    Source("naev-data", _NAEV, ("heartofmachine.ogg",), "music", "CC BY 3.0", "Alexandr Zhelanov"),
    Source("naev-data", _NAEV, ("dark_city.ogg",), "music", "CC BY 3.0", "Muncheybobo"),
    Source(
        "naev-data",
        _NAEV,
        _names("blackmoor_tides imminent_threat", ".ogg"),
        "music",
        "CC BY 3.0",
        "Matthew Pablo",
    ),
    Source("naev-data", _NAEV, ("pirate1_theme1.ogg",), "music", "CC0 1.0", "Olivier Bérubé"),
    Source("naev-data", _NAEV, ("pirates_orchestra.ogg",), "music", "CC0 1.0", "Dizzy Crow"),
    Source(
        "ufoai-music",
        _UFO,
        _names("David01 David02 David03 David04 David05", ".ogg"),
        "music",
        "CC BY 3.0",
        "David Reeves (Destructavator)",
    ),
    Source("ufoai-music", _UFO, ("azrael1.ogg",), "music", "CC BY 3.0", "azrael1322"),
    Source("ufoai-music", _UFO, ("karlmacklin_*.ogg",), "music", "CC BY 3.0", "Karl Macklin"),
    Source("ufoai-music", _UFO, ("van_*.ogg",), "music", "CC BY 3.0", "Manuel Marino (Vanethian)"),
    Source(
        "ufoai-music",
        _UFO,
        _names("alBasrahM greecei turinItalyM", ".ogg"),
        "music",
        "public domain",
        "Independent.nu, Golgotha",
    ),
    Source(
        "pax-britannica-data",
        "usr/share/pax-britannica/audio",
        ("music.ogg",),
        "music",
        "MIT",
        "Ben Abraham, Renaud Bédard, Henk Boom, Daniel Burton, Matthew Gallant",
    ),
    *(
        Source(
            "freedoom",
            f"usr/share/games/doom/{wad}.wad",
            ("D_*",),
            "midi",
            "BSD-3-Clause",
            "Freedoom project",
        )
        for wad in ("freedoom1", "freedoom2")
    ),
    Source(
        "fluidr3mono-gm-soundfont",
        "usr/share/fluidr3mono-gm-soundfont",
        ("*.sf3",),
        "soundfont",
        "MIT",
        "Frank Wen, Michael Cowgill",
    ),
    Source(
        "musescore-general-soundfont-small",
        "usr/share/sounds/sf3",
        ("*.sf3",),
        "soundfont",
        "MIT",
        "Frank Wen, Michael Cowgill, S. Christian Collins",
    ),
    # Sound.ocg/authors.txt: CC0 where listed, else CC BY 3.0; most are from Freesound
    Source(
        "openclonk-data",
        f"{_CLONK}/Sound.ocg",
        (
            "Environment.ocg/BirdsLoop.ogg",
            "Environment.ocg/WindLoop.ogg",
            "Environment.ocg/Waterfall.ogg",
            "Environment.ocg/Lightning.ocg/Thunder?.ogg",
            "Liquids.ocg/StereoRain.ogg",
            "Liquids.ocg/*Sizzle.ogg",
            "Liquids.ocg/Splash[13].wav",
            "Liquids.ocg/Swim3.ogg",
            "Fire.ocg/Fire.ogg",
            "Clonk.ocg/Movement.ocg/DivingLoop?.ogg",
            "Objects.ocg/Electrical.ogg",
            "Objects.ocg/Boompack.ocg/Fly.ogg",
            "Objects.ocg/Plane.ocg/PropellerLoop.ogg",
            "Structures.ocg/Elevator.ocg/Moving.ogg",
            "Structures.ocg/FanLoop.ogg",
            "Structures.ocg/Repair.wav",
            "Structures.ocg/StoneGate.ocg/Chain.ogg",
            "Structures.ocg/WheelsTurn.ogg",
            "Hits.ocg/Materials.ocg/Rock.ocg/Rockfall?.wav",
        ),
        "noise",
        "CC BY 3.0",
        "OpenClonk contributors, see Sound.ocg/authors.txt",
    ),
    Source(
        "openclonk-data",
        f"{_CLONK}/Sound.ocg",
        (
            "Animals.ocg/MosquitoBuzz.ogg",
            "Environment.ocg/Disasters.ocg/Earthquake.ogg",
            "Fire.ocg/Fuse.ogg",
            "Fire.ocg/FuseLoop.ogg",
            "Liquids.ocg/Boiling.ogg",
            "Structures.ocg/Furnace.ocg/Loop.ogg",
            "Structures.ocg/Pumpjack.ogg",
            "Structures.ocg/SawmillRipcut.ogg",
            "Structures.ocg/SteamEngine.ogg",
        ),
        "noise",
        "CC0 1.0",
        "Zywx, prozaciswack, RytmenPinnen, fryzu82, tc630, felix.blume, kolczok, BenNevis",
    ),
    Source(
        "sonic-pi-samples",
        _SONIC_PI,
        _names(
            "ambi_dark_woosh ambi_drone ambi_glass_hum ambi_glass_rub ambi_haunted_hum "
            "ambi_lunar_land ambi_sauna ambi_swoosh loop_3d_printer vinyl_hiss",
            ".flac",
        ),
        "noise",
        "CC0 1.0",
        "Freesound users, see samples/README.md",
    ),
    Source(
        "asterisk-core-sounds-it-wav",
        "usr/share/asterisk/sounds/it_IT_m_Carlo",
        ("*.wav",),
        "speech",
        "CC BY 3.0",
        "Carlo Flora",
    ),
    Source(
        "asterisk-core-sounds-ru-wav",
        "usr/share/asterisk/sounds/ru_RU_f_IvrvoiceRU",
        ("*.wav",),
        "speech",
        "CC BY 3.0",
        "Maxim Topal (ivrvoice.ru)",
    ),
)

# SHA-256 of the packages whose licences were read: those of Debian 12
READ = {
    "asterisk-core-sounds-it-wav": (
        "5a26638089e134b8ac39363fe249c5c93c50cd8bfdc9b2499ae61ec4a35e2fcb"
    ),
    "asterisk-core-sounds-ru-wav": (
        "ccbfaebfa450b7a9ddf644ae0f3d1e9017d5df7c0aebe816e946345589d38201"
    ),
    "fluidr3mono-gm-soundfont": "4098301bf29f4253c2f5799a844f42dd4aa733d91a210071ad16d7757dea51d6",
    "freedoom": "c5b7cf1aa6dde8c980271981ce75b9b4a9e7b634b9db93d471f54bab7a8e1290",
    "musescore-general-soundfont-small": (
        "65f9c1cb658c49e8713d2c95238d5d26868f520341f74a4fe26248a8f763c739"
    ),
    "naev-data": "a98849cacdfc72779e03ceb68f32af03cb3c3f382ba8b82e3299ef87254b454d",
    "openclonk-data": "1505314b47196c5052caf75e870ea2cf36bdb4e1d0c7e3f133da93815b7e642f",
    "pax-britannica-data": "c6749ebc6bb86548576f4082b97049d761f93fd1ae9d44c7728a59c6fb63fbdd",
    "sonic-pi-samples": "25f2312d2fae005e6ad0f4726b8ed3084e776006a5a132083506e960224ac79d",
    "ufoai-music": "2465d55e9dce75a3a2a1ad1c8ca67da84e251c04e0965d63a8562b2d9f76f9e6",
}


def packages(sources: Iterable[Source]) -> tuple[str, ...]:
    """Their packages, sorted."""
    return tuple(sorted({source.package for source in sources}))


def source_of(path: str, sources: Sequence[Source]) -> Source | None:
    """The first source that holds a file of a package; None where none does."""
    return next((source for source in sources if source.holds(path)), None)
