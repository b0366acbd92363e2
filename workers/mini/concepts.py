"""What the bundled model can see: its concepts, the words for them, and the groups that policies speak of."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Concept:
    """One kind of thing that is drawn in a scene.

    `drawings` names emoji code points; `words` are (singular, plural) pairs, the usual one first.
    """

    name: str
    drawings: tuple[str, ...]
    words: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Several concepts that one word covers."""

    name: str
    members: tuple[str, ...]
    words: tuple[tuple[str, str], ...]


def _concept(name: str, drawings: str, *words: str) -> Concept:
    pairs = [word.partition("|")[::2] for word in (name, *words)]
    return Concept(
        name=name.partition("|")[0],
        drawings=tuple(drawings.split()),
        words=tuple((one, many or f"{one}s") for one, many in pairs),
    )


def _group(name: str, members: str, *words: str) -> Group:
    pairs = [word.partition("|")[::2] for word in (name, *words)]
    return Group(
        name=name.partition("|")[0],
        members=tuple(member.strip() for member in members.split(",")),
        words=tuple((one, many or f"{one}s") for one, many in pairs),
    )


#: Everything that the model is taught to see. `pistol` and `water pistol` share a code point: which of the two a
#: drawing shows depends on its style (see `material.REAL_PISTOLS`).
CONCEPTS: tuple[Concept, ...] = (
    # weapons and what looks like them
    _concept("pistol", "1f52b", "handgun", "gun", "firearm", "revolver"),
    _concept("water pistol", "1f52b", "toy gun", "squirt gun"),
    _concept("dagger", "1f5e1", "combat knife|combat knives"),
    _concept("sword", "2694", "sabre"),
    _concept("bomb", "1f4a3", "grenade"),
    _concept("dynamite|dynamite", "1f9e8", "firecracker"),
    _concept("axe", "1fa93", "hatchet|hatchets"),
    _concept("bow and arrow|bows and arrows", "1f3f9", "archery bow"),
    _concept("kitchen knife|kitchen knives", "1f52a", "chef's knife|chef's knives"),
    # drugs and medicine
    _concept("syringe", "1f489", "needle", "injection"),
    _concept("pill", "1f48a", "tablet", "capsule"),
    _concept("mushroom", "1f344", "toadstool"),
    _concept("herb", "1f33f", "green leaf|green leaves"),
    # alcohol and tobacco
    _concept("beer|beer", "1f37a 1f37b", "lager", "pint"),
    _concept("wine|wine", "1f377", "glass of wine|glasses of wine"),
    _concept("cocktail", "1f378 1f379", "mixed drink", "martini"),
    _concept("champagne|champagne", "1f37e 1f942", "sparkling wine|sparkling wine"),
    _concept("sake|sake", "1f376", "rice wine|rice wine"),
    _concept("cigarette", "1f6ac", "smoke", "cigar"),
    # gambling and money
    _concept("die|dice", "1f3b2", "gaming die|gaming dice"),
    _concept("slot machine", "1f3b0", "fruit machine", "one-armed bandit"),
    _concept("playing card", "1f0cf 1f3b4", "joker"),
    _concept("money bag", "1f4b0", "sack of money|sacks of money"),
    _concept("banknote", "1f4b5 1f4b4", "cash|cash", "bill"),
    _concept("credit card", "1f4b3", "bank card"),
    _concept("gem", "1f48e", "diamond", "jewel"),
    # harm
    _concept("blood|blood", "1fa78", "drop of blood|drops of blood"),
    _concept("skull", "1f480 2620", "death's head"),
    _concept("coffin", "26b0", "casket"),
    _concept("explosion", "1f4a5", "blast"),
    _concept("fire", "1f525", "flame"),
    # gestures and adult hints
    _concept("middle finger", "1f595", "rude gesture", "obscene gesture"),
    _concept("bikini", "1f459", "swimsuit"),
    _concept("kiss|kisses", "1f48b", "lipstick mark"),
    # kitchen and food
    _concept("fork and knife|forks and knives", "1f374 1f37d", "cutlery|cutlery"),
    _concept("frying pan", "1f373", "pan"),
    _concept("bread|bread", "1f35e", "loaf|loaves"),
    _concept("cheese|cheese", "1f9c0", "wedge of cheese|wedges of cheese"),
    _concept("tomato|tomatoes", "1f345"),
    _concept("apple", "1f34e", "red apple"),
    _concept("banana", "1f34c"),
    _concept("pizza", "1f355", "slice of pizza|slices of pizza"),
    _concept("hamburger", "1f354", "burger"),
    _concept("cake", "1f382", "birthday cake"),
    _concept("coffee|coffee", "2615", "hot drink", "cup of tea|cups of tea"),
    _concept("milk bottle", "1f37c", "baby bottle"),
    # toys and play
    _concept("teddy bear", "1f9f8", "stuffed animal"),
    _concept("kite", "1fa81"),
    _concept("balloon", "1f388"),
    _concept("game controller", "1f3ae", "gamepad", "video game"),
    # people
    _concept("baby|babies", "1f476", "infant"),
    _concept("police officer", "1f46e", "policeman|policemen"),
    # animals
    _concept("dog", "1f436 1f415", "puppy|puppies"),
    _concept("cat", "1f431 1f408", "kitten"),
    _concept("horse", "1f434 1f40e", "pony|ponies"),
    _concept("fish|fish", "1f41f 1f420"),
    _concept("snake", "1f40d", "serpent"),
    _concept("butterfly|butterflies", "1f98b"),
    # vehicles
    _concept("car", "1f697 1f698", "automobile"),
    _concept("bicycle", "1f6b2", "bike"),
    _concept("aeroplane", "2708", "plane", "aircraft|aircraft"),
    _concept("sailing boat", "26f5", "sailboat", "boat"),
    _concept("rocket", "1f680", "spaceship"),
    # sport
    _concept("football", "26bd", "soccer ball"),
    _concept("basketball", "1f3c0"),
    _concept("trophy|trophies", "1f3c6", "prize cup"),
    # music
    _concept("guitar", "1f3b8"),
    _concept("trumpet", "1f3ba"),
    _concept("violin", "1f3bb", "fiddle"),
    # nature
    _concept("tree", "1f333 1f332"),
    _concept("sunflower", "1f33b", "yellow flower"),
    _concept("rose", "1f339", "red flower"),
    _concept("cactus|cacti", "1f335"),
    # things
    _concept("hammer", "1f528"),
    _concept("scissors|scissors", "2702", "pair of scissors|pairs of scissors"),
    _concept("key", "1f511"),
    _concept("book", "1f4d5 1f4d7 1f4d6"),
    _concept("phone", "1f4f1", "smartphone", "mobile phone"),
    _concept("laptop", "1f4bb", "computer"),
    _concept("alarm clock", "23f0", "clock"),
    _concept("umbrella", "2602 2614"),
    _concept("light bulb", "1f4a1", "lamp"),
    _concept("camera", "1f4f7 1f4f8"),
    _concept("crown", "1f451"),
    _concept("heart", "2764 1f496"),
)

GROUPS: tuple[Group, ...] = (
    _group(
        "weapon",
        "pistol,dagger,sword,bomb,dynamite,axe,bow and arrow",
        "arm|arms",
        "weapon of any kind|weapons of any kind",
    ),
    _group("bladed weapon", "dagger,sword,axe", "blade|blades", "sharp weapon"),
    _group("explosive", "bomb,dynamite", "explosive device", "explosive weapon"),
    _group(
        "toy", "water pistol,teddy bear,kite,balloon,game controller", "plaything", "children's toy"
    ),
    _group(
        "drug",
        "syringe,pill,mushroom,herb",
        "drugs or pills|drugs or pills",
        "illegal drug",
        "narcotic",
        "controlled substance",
    ),
    _group("medicine|medicine", "syringe,pill", "medication", "medical supply|medical supplies"),
    _group(
        "alcohol|alcohol",
        "beer,wine,cocktail,champagne,sake",
        "alcoholic drink",
        "liquor|liquor",
        "booze|booze",
        "drink with alcohol|drinks with alcohol",
    ),
    _group("tobacco|tobacco", "cigarette", "tobacco product", "smoking|smoking"),
    _group(
        "gambling|gambling",
        "die,slot machine,playing card",
        "betting|betting",
        "casino game",
        "game of chance|games of chance",
        "gambling game",
    ),
    _group(
        "money|money", "money bag,banknote,credit card,gem", "wealth|wealth", "valuables|valuables"
    ),
    _group(
        "gore|gore",
        "blood,skull,coffin",
        "sign of death|signs of death",
        "blood or death|blood or death",
    ),
    _group(
        "food|food",
        "bread,cheese,tomato,apple,banana,pizza,hamburger,cake",
        "meal",
        "thing to eat|things to eat",
        "something to eat|things to eat",
    ),
    _group("fruit|fruit", "tomato,apple,banana"),
    _group(
        "kitchen thing",
        "fork and knife,frying pan,bread,cheese,tomato",
        "kitchen tool",
        "cooking|cooking",
        "kitchen scene",
        "kitchenware|kitchenware",
    ),
    _group("animal", "dog,cat,horse,fish,snake,butterfly", "pet", "creature"),
    _group(
        "vehicle",
        "car,bicycle,aeroplane,sailing boat,rocket",
        "means of transport|means of transport",
    ),
    _group(
        "sport|sports",
        "football,basketball,trophy",
        "sports equipment|sports equipment",
        "ball game",
    ),
    _group("musical instrument", "guitar,trumpet,violin", "instrument", "music|music"),
    _group("plant", "tree,sunflower,rose,cactus,herb", "nature|nature"),
    _group("flower", "sunflower,rose"),
    _group("tool", "hammer,scissors", "hand tool", "workshop tool"),
    _group(
        "electronic device",
        "phone,laptop,camera,game controller",
        "electronics|electronics",
        "gadget",
    ),
    _group(
        "child|children",
        "baby,milk bottle,teddy bear",
        "thing for children|things for children",
        "minor",
    ),
    _group("fire or explosion|fires or explosions", "fire,explosion", "burning|burning"),
    _group(
        "adult content|adult content",
        "bikini,kiss",
        "suggestive picture",
        "suggestive content|suggestive content",
    ),
)

INDEX: dict[str, int] = {concept.name: index for index, concept in enumerate(CONCEPTS)}
