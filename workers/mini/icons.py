"""Which drawings of general icon sets show which concept, by the names that those sets give them."""

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from workers.mini.concepts import INDEX


@dataclass(frozen=True, slots=True, kw_only=True)
class IconSet:
    """One set of icons on npm; `coloured` ones keep their colours, the others get a colour when they are placed."""

    package: str
    licence: str
    coloured: bool = False


SETS: tuple[IconSet, ...] = (
    IconSet(package="@iconify-json/mdi@1.2.3", licence="Apache-2.0"),
    IconSet(package="@iconify-json/tabler@1.2.41", licence="MIT"),
    IconSet(package="@iconify-json/fa6-solid@1.2.4", licence="CC-BY-4.0"),
    IconSet(package="@iconify-json/ph@1.2.2", licence="MIT"),
    IconSet(package="@iconify-json/lucide@1.2.137", licence="ISC"),
    IconSet(package="@iconify-json/lucide-lab@1.2.3", licence="ISC"),
    IconSet(package="@iconify-json/icon-park@1.2.4", licence="Apache-2.0", coloured=True),
    IconSet(package="@iconify-json/flat-color-icons@1.2.3", licence="MIT", coloured=True),
    IconSet(package="@iconify-json/fluent-color@1.2.21", licence="MIT", coloured=True),
    IconSet(package="@iconify-json/fluent@1.2.60", licence="MIT"),
    IconSet(package="@iconify-json/streamline@1.2.5", licence="CC-BY-4.0"),
    IconSet(
        package="@iconify-json/streamline-freehand-color@1.2.2", licence="CC-BY-4.0", coloured=True
    ),
    IconSet(
        package="@iconify-json/streamline-ultimate-color@1.2.2", licence="CC-BY-4.0", coloured=True
    ),
    IconSet(package="@iconify-json/streamline-plump@1.2.0", licence="CC-BY-4.0"),
    IconSet(package="@iconify-json/streamline-flex@1.2.3", licence="CC-BY-4.0"),
    IconSet(package="@iconify-json/streamline-pixel@1.2.0", licence="CC-BY-4.0"),
    IconSet(package="@iconify-json/solar@1.2.13", licence="CC-BY-4.0"),
    IconSet(package="@iconify-json/mingcute@1.2.8", licence="Apache-2.0"),
    IconSet(package="@iconify-json/healthicons@1.2.13", licence="MIT"),
    IconSet(package="@iconify-json/hugeicons@1.2.35", licence="MIT"),
    IconSet(package="@iconify-json/material-symbols@1.2.98", licence="Apache-2.0"),
    IconSet(package="@iconify-json/icons8@1.2.1", licence="MIT"),
    IconSet(package="@iconify-json/pepicons-pop@1.2.4", licence="CC-BY-4.0"),
    IconSet(package="@iconify-json/maki@1.2.5", licence="CC0-1.0"),
    IconSet(package="@iconify-json/game-icons@1.2.4", licence="CC-BY-3.0"),
)

#: Names by concept. Where one name means different things in different sets, ``set:name`` says in which it counts.
NAMES: dict[str, str] = {
    "pistol": "pistol pistol-gun revolver fa6-solid:gun game-icons:gun",
    "water pistol": "water-gun",
    "dagger": "dagger stiletto bowie-knife knife-military broad-dagger plain-dagger diving-dagger",
    "sword": "sword swords katana crossed-swords sword-cross broadsword two-handed-sword ancient-sword "
    "pointy-sword striped-sword shining-sword rune-sword",
    "bomb": "bomb bomb-emoji bomb-minimalistic time-bomb rolling-bomb sparky-bomb unlit-bomb "
    "entertainment-events-hobbies-bomb",
    "dynamite": "dynamite firecracker time-dynamite",
    "axe": "axe hatchet war-axe fire-axe tomahawk wood-axe sharp-axe stone-axe axe-battle battle-axe "
    "battered-axe axe-swing",
    "bow and arrow": "bow-arrow tabler:bow mdi:bow-arrow pocket-bow high-shot",
    "kitchen knife": "knife cleaver kitchen-knife meat-cleaver chef-knife kitchen-knives knives",
    "syringe": "syringe injection syringe-24px virus-lab-research-syringe",
    "pill": "pill pills capsule tablets tablet-capsule medicine-pills health-drugs-pill pills-tablet "
    "prescription-pills-drugs-healthcare",
    "mushroom": "mushroom mushrooms grass-mushroom spotted-mushroom super-mushroom mushrooms-cluster",
    "herb": "leaf leaves leaf-one leaf-two leaf-three three-leaves herbs-bundle cannabis",
    "beer": "beer beer-mug beer-stein beer-mug-empty drink-beer glass-mug",
    "wine": "wine-glass glass-wine drink-wine wine-glass-empty ph:wine lucide:wine wine-bar",
    "cocktail": "martini cocktail glass-cocktail martini-glass cocktail-glass drink-margarita "
    "martini-glass-empty martini-glass-citrus local-bar",
    "champagne": "champagne champagne-party-alcohol glass-champagne bottle-champagne champagne-glasses "
    "champagne-cork",
    "sake": "sake-bottle",
    "cigarette": "cigarette smoking smoking-rooms",
    "die": "dice dice-d6 dice-one dice-two dice-three dice-four dice-five dice-six dice-six-faces-one "
    "dice-six-faces-two dice-six-faces-three dice-six-faces-four dice-six-faces-five "
    "dice-six-faces-six perspective-dice-six perspective-dice-two perspective-dice-four "
    "perspective-dice-six-faces-random rolling-dices dice-multiple",
    "slot machine": "slot-machine casino-777-slot-machine",
    "playing card": "playing-cards card-joker cards-playing cards-playing-club cards-playing-heart "
    "cards-playing-spade cards-playing-diamond joker card-game-cards playing-cards-fan "
    "card-game-card-spade poker-hand card-ace-hearts card-ace-spades card-king-hearts "
    "card-queen-spades card-jack-clubs",
    "money bag": "money-bag money-bag-dollar moneybag sack-dollar swap-bag money-bag-euro",
    "banknote": "banknote cash money-bill money-cash-bill paper-money money-bills cash-multiple "
    "money-bill-1 money-bill-wave banknotes",
    "credit card": "credit-card card-credit",
    "gem": "gem diamond-stone tabler:diamond mdi:diamond material-symbols:diamond cut-diamond emerald "
    "gems sketch-logo diamond-hard",
    "skull": "skull skull-crossbones skull-crossed-bones death-skull broken-skull pirate-skull skull-24px",
    "coffin": "coffin",
    "explosion": "explosion explosion-rays mine-explosion spiky-explosion bright-explosion",
    "fire": "fire flame small-fire local-fire-department fire-simple",
    "middle finger": "middle-finger hand-middle-finger",
    "bikini": "swimsuit bikini",
    "kiss": "lips",
    "fork and knife": "fork-knife utensils restaurant silverware-fork-knife utensils-crossed knife-fork "
    "fork-knife-crossed",
    "frying pan": "frying-pan skillet",
    "bread": "bread bread-slice sliced-bread bread-loaf bread-one food-drink-bread",
    "cheese": "cheese cheese-wedge",
    "tomato": "tomato",
    "apple": "lucide:apple tabler:apple food-apple shiny-apple apple-whole apple-fruit apple-one",
    "banana": "banana fruit-banana banana-bunch",
    "pizza": "pizza pizza-slice full-pizza food-pizza food-drink-pizza local-pizza",
    "hamburger": "burger hamburger mdi:hamburger ph:hamburger lucide:hamburger hamburger-one "
    "food-drink-hamburger",
    "cake": "cake birthday-cake cake-slice cake-candles cake-one food-drink-desert-cake",
    "coffee": "coffee coffee-cup coffee-mug mug-hot tea-cup mug-saucer local-cafe drink-coffee "
    "food-drink-coffee-cup food-drink-coffee",
    "milk bottle": "baby-bottle bottle-baby feeding-bottle",
    "teddy bear": "teddy-bear teddy",
    "kite": "kite",
    "balloon": "balloon balloons party-balloon",
    "game controller": "gamepad game-controller device-gamepad xbox-controller videogame-asset "
    "retro-controller console-controller game-pad",
    "baby": "ph:baby lucide:baby mingcute:baby baby-face",
    "police officer": "police-officer police-officer-head",
    "dog": "dog sitting-dog jumping-dog dog-side animal-dog pet-animals-dog",
    "cat": "cat pet-animals-cat animal-cat",
    "horse": "horse horse-head",
    "fish": "fish fish-simple tropical-fish double-fish food-fish fish-one",
    "snake": "snake cobra animal-snake",
    "butterfly": "butterfly",
    "car": "car car-side car-front city-car car-sports car-profile directions-car car-estate vehicle-car",
    "bicycle": "bike bicycle bicycle-bike pedal-bike",
    "aeroplane": "airplane lucide:plane tabler:plane fa6-solid:plane flight",
    "sailing boat": "sailboat sail-boat sailing sailboat-one",
    "rocket": "rocket rocket-launch rocket-one",
    "football": "soccer soccer-ball ball-football sports-soccer futbol sport-soccer solar:football",
    "basketball": "basketball basketball-ball sport-basketball ball-basketball basketball-one "
    "sports-basketball",
    "trophy": "trophy trophy-cup award-trophy interface-essential-trophy",
    "guitar": "guitar guitar-acoustic guitar-electric modern-music-electric-guitar",
    "trumpet": "mdi:trumpet fa6-solid:trumpet game-icons:trumpet",
    "violin": "violin",
    "tree": "tree-deciduous tree-pine pine-tree tree-evergreen ph:tree mdi:tree fa6-solid:tree "
    "icon-park:tree tree-one tree-two oak beech",
    "sunflower": "sunflower daisy",
    "rose": "rose flower-rose",
    "cactus": "cactus",
    "hammer": "hammer claw-hammer flat-hammer hammer-claw interface-essential-hammer",
    "scissors": "scissors scissor",
    "key": "key",
    "book": "book book-open open-book book-one",
    "phone": "smartphone cellphone device-mobile mobile-phone mobile-screen iphone phone-android",
    "laptop": "laptop laptop-computer laptop-one",
    "alarm clock": "alarm-clock ph:alarm mdi:alarm tabler:alarm material-symbols:alarm clock-alarm",
    "umbrella": "umbrella open-umbrella umbrella-one",
    "light bulb": "lightbulb bulb light-bulb lightbulb-on interface-essential-light-bulb",
    "camera": "camera photo-camera camera-retro camera-one",
    "crown": "crown jewel-crown queen-crown crown-simple interface-essential-crown",
    "heart": "heart hearts",
    # always drawn in reds: see `RED`
    "blood": "blood-drop drop droplet water-drop",
}

#: The concept whose icons have to be red, because a drop of another colour is not blood.
RED = "blood"

#: What sets add to a name to say how it is drawn; at most three ways of one name are taken.
_WAYS = (
    *("fill", "filled", "bold", "duotone", "bold-duotone", "line-duotone", "solid", "linear"),
    *("outline", "line", "broken", "rounded", "regular", "negative", "remix", "1", "2", "3"),
    *(
        "24",
        "24-filled",
        "24-regular",
        "28-filled",
        "32-filled",
        "32-color",
        "48-color",
        "48-filled",
    ),
    *("24-color", "flat", "fill-sharp", "outline-24px", "24px"),
)


def icons(archive: Path) -> Iterator[tuple[int, str]]:
    """Yield (concept, SVG) for each icon of a set that shows one of ours."""
    stem = archive.name.removeprefix("iconify-json-").rsplit("-", 1)[0]
    with tarfile.open(archive) as opened:
        member = opened.extractfile("package/icons.json")
        if member is None:
            message = f"{archive} has no icons.json: fetch it again"
            raise ValueError(message)
        table = json.load(member)
    known = table["icons"]
    for concept, names in NAMES.items():
        for entry in names.split():
            within, _, name = entry.rpartition(":")
            if within and within != stem:
                continue
            forms = [name, *(f"{name}-{way}" for way in _WAYS)]
            found = [form for form in forms if form in known]
            for form in found[:3]:
                yield INDEX[concept], svg_of(table, form)


def svg_of(table: dict[str, object], name: str) -> str:
    """Return an icon as a whole SVG, black where the set leaves its colour open."""
    icon = table["icons"][name]  # type: ignore[index]
    width = icon.get("width", table.get("width", 16))
    height = icon.get("height", table.get("height", 16))
    body = icon["body"].replace("currentColor", "#000")
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{icon.get("left", 0)} {icon.get("top", 0)} {width} {height}">{body}</svg>'
    )
