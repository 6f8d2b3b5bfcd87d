"""Classes of AudioSet that no machine makes, by their place in its order of 527 (names after its ontology, CC BY 4.0).

Three families, because each needs its own measure of what is usual beside a machine. Of nature, what faults sound like
is left out (steam, gurgling); so are music, vehicles, tools, doors and alarms, because tones, impacts and hiss excite
them: real faults would be explained away.
"""

from __future__ import annotations

_LIVING = """
    Speech| Male speech| Female speech| Child speech| Conversation| Narration| Babbling| Speech synthesizer|
    Shout| Bellow| Whoop| Yell| Battle cry| Children shouting| Screaming| Whispering| Laughter| Baby laughter|
    Giggle| Snicker| Belly laugh| Chuckle| Crying| Baby cry| Whimper| Wail| Sigh| Singing| Choir| Yodeling|
    Chant| Mantra| Male singing| Female singing| Child singing| Synthetic singing| Rapping| Humming| Groan|
    Grunt| Whistling| Breathing| Wheeze| Snoring| Gasp| Pant| Snort| Cough| Throat clearing| Sneeze| Sniff| Run|
    Shuffle| Footsteps| Chewing| Biting| Gargling| Stomach rumble| Burping| Hiccup| Fart| Hands|
    Finger snapping| Clapping| Heart sounds| Heart murmur| Cheering| Applause| Chatter| Crowd| Babble of voices|
    Children playing| Animal| Domestic animals| Dog| Bark| Yip| Howl| Bow-wow| Growling| Whimper (dog)| Cat|
    Purr| Meow| Hiss (cat)| Caterwaul| Livestock| Horse| Clip-clop| Neigh| Cattle| Moo| Cowbell| Pig| Oink|
    Goat| Bleat| Sheep| Fowl| Chicken| Cluck| Crowing| Turkey| Gobble| Duck| Quack| Goose| Honk| Wild animals|
    Roaring cats| Roar| Bird| Bird song| Chirp| Squawk| Pigeon| Coo| Crow| Caw| Owl| Hoot| Flapping wings|
    Dogs, wolves| Rodents| Mouse| Patter| Insect| Cricket| Mosquito| Fly| Buzz| Bee, wasp| Frog| Croak| Snake|
    Rattle| Whale
"""
FAMILIES: dict[str, dict[int, str]] = {
    "living": dict(enumerate(name.strip() for name in _LIVING.split("|"))),
    "weather": dict(enumerate(
        ("Wind", "Rustling leaves", "Wind noise", "Thunderstorm", "Thunder", "Water", "Rain", "Raindrop",
         "Rain on a surface", "Stream", "Waterfall", "Ocean", "Waves"), start=283,
    )) | {298: "Fire", 299: "Crackle"},
    "clock": {406: "Clock", 407: "Tick", 408: "Tick-tock"},
}  # fmt: skip
