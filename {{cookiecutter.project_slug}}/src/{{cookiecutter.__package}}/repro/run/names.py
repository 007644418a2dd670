"""Two words for a number, so that the names of runs differ at a glance and can be spoken."""

ADJECTIVES = (
    *("able", "agile", "amber", "azure", "bold", "brave", "brief", "bright", "brisk", "broad"),
    *("calm", "clean", "clear", "clever", "close", "cool", "crisp", "curly", "daring", "deep"),
    *("eager", "early", "easy", "exact", "fair", "fancy", "fast", "fine", "firm", "flat"),
    *("fond", "fresh", "gentle", "glad", "golden", "good", "grand", "great", "green", "happy"),
    *("hardy", "honest", "humble", "jolly", "keen", "kind", "large", "late", "light", "lively"),
    *("long", "loyal", "lucky", "mellow", "merry", "mild", "mossy", "neat", "nimble", "noble"),
    *("open", "plain", "polite", "proud", "quick", "quiet", "rapid", "rare", "ready", "round"),
    *("royal", "rustic", "sandy", "sharp", "shiny", "short", "silent", "silver", "simple", "sleek"),
    *("slow", "small", "smart", "smooth", "snowy", "soft", "solid", "spry", "steady", "still"),
    *("sunny", "sweet", "swift", "tall", "tidy", "tiny", "warm", "wide", "wise", "young"),
)
NOUNS = (
    *("acorn", "alder", "aspen", "badger", "basin", "beech", "birch", "bison", "breeze", "brook"),
    *("canyon", "cedar", "cliff", "cloud", "clover", "comet", "coral", "cove", "crane", "creek"),
    *("dawn", "delta", "dove", "dune", "eagle", "elm", "ember", "falcon", "fern", "field"),
    *("finch", "fir", "fjord", "forest", "fox", "garden", "glade", "grove", "gull", "harbor"),
    *("hare", "hazel", "heron", "hill", "island", "ivy", "jay", "lagoon", "lake", "lark"),
    *("laurel", "leaf", "lily", "lynx", "maple", "marsh", "meadow", "mesa", "moon", "moss"),
    *("oak", "ocean", "olive", "orchid", "osprey", "otter", "owl", "pebble", "pine", "plover"),
    *("pond", "poplar", "prairie", "quail", "rain", "raven", "reed", "ridge", "river", "robin"),
    *("rowan", "sage", "seal", "shore", "sparrow", "spring", "spruce", "star", "stone", "storm"),
    *("stream", "summit", "swan", "thicket", "tiger", "tulip", "valley", "willow", "wolf", "wren"),
)


def words_for(microsecond: int) -> str:
    """Two words, joined by a dash, for a number from 0 to 999,999; every hundred share theirs."""
    adjective, noun = divmod(microsecond // 100, len(NOUNS))
    return f"{ADJECTIVES[adjective]}-{NOUNS[noun]}"
