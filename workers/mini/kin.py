"""Which drawings of emoji sets show a concept, or what a group's word covers, by another name.

The drawings that stand for "anything else" in scenes must show none of these: a poodle that is no
`dog`, or a tram where a policy says "vehicle", would be a wrong label. Rather too many words than
too few: each set has many more drawings than are wanted.
"""

import re

_WORDS = frozenset(
    word
    for words in (
        # weapons, explosives, fire
        """
        pistol gun blunderbuss hunting dagger knife sword sabre spear bomb grenade dynamite
        firecracker fireworks sparkler bow archery shot cannon collision boom explosion fire flame
        volcano candle lamp lantern pyromaniac smoke axe leth torch hilt fight comet meteor ninja
        firefighter razor trident hocho spade needle
        """,
        # drugs, alcohol, tobacco, and what is eaten or drunk
        """
        syringe hypodermic pill medical drug joint cigarette smoking pipe mushroom beer mug sake
        wine cocktail tropical martini champagne clinking tumbler beverage mate tea teapot coffee
        milk cup glass bottle food bento rice noodle ramen spaghetti pasta potato oden sushi
        shrimp fried cake cupcake shortcake mooncake dango dumpling cookie takeout pizza hamburger
        burger fries hotdog dog ice cream icecream shaved doughnut donut pie chocolate candy
        lollipop custard honey pear peach mango kiwi melon watermelon tangerine orange lemon lime
        banana pineapple grape cherry cherries strawberry blueberries olive coconut eggplant
        aubergine carrot corn maize pepper cucumber broccoli garlic onion leafy peanut chestnut
        bean ginger pod apple avocado bacon bagel baguette bread croissant pretzel pancake waffle
        cheese meat poultry drumstick turkey steak sandwich taco burrito tamale falafel egg
        cooking stew fondue salad popcorn butter salt canned curry bowl cracker flatbread pumpkin
        jack tomato fork spoon plate chopstick cutlery pan pot kitchen jar vegetable teacup cook
        petri bandage plaster health sausage aid saline forceps scalpel crutches latte barista
        patient swab stretcher doctor champignon
        """,
        # gambling, money, sports, toys, music
        """
        slot die dice joker card domino mahjong chess money banknote dollar euro pound yen coin
        currency bank credit gem diamond jewel ring treasure wallet purse football soccer rugby
        baseball softball basketball volleyball tennis badminton hockey lacrosse ping pong bowling
        cricket golf boxing glove martial ball ski skier snowboarder sled surfing skate skateboard
        swimming curling medal trophy goal dart direct target bullseye archer billiards pool kite
        yo teddy toy balloon puzzle pinata disc game joystick doll violin guitar trumpet saxophone
        banjo drum maracas harp flute accordion piano keyboard horn trombone music musical
        microphone headphone radio skis golfing handball wrestling piata
        """,
        # harm, gestures, adult hints, people who are concepts
        """
        blood drop droplet water transfuse wound skull crossbones bone coffin tomb grave urn
        tombstone middle finger bikini swimsuit underwear briefs kiss lips lipstick mouth baby
        child boy girl family breast police policeman detective cop pregnant kid kissing headstone
        piracy
        """,
        # animals
        """
        cat kitten poodle puppy horse pony cavalry horseback pegasus unicorn zebra donkey moose
        deer fish blowfish carp shark dolphin whale seal octopus squid jellyfish coral crab
        lobster oyster shell snake cobra lizard crocodile dragon dinosaur sauropod rex diplodocus
        turtle tortoise frog butterfly bug insect beetle ladybug ladybird ladybeetle cockroach
        mosquito fly worm caterpillar ant bee honeybee spider web scorpion snail bear beaver
        badger bison buffalo boar hog pig cow ox bull camel hump elephant mammoth rhinoceros
        hippopotamus giraffe llama ewe ram sheep goat aries taurus capricorn leo pisces scorpio
        scorpius cancer fox wolf raccoon skunk otter sloth kangaroo hamster hedgehog koala panda
        leopard tiger lion gorilla orangutan monkey mouse rat rabbit bunny bunnies chipmunk
        squirrel bat tapir duck swan goose eagle dove bird parrot flamingo peacock chick rooster
        chicken hen owl penguin dodo phoenix feather wing paw animal griffin beast crow creature
        monster macaw nessy serpent snout sagittarius mastodon hampster saggitarius pigeon sparrow
        porpoise
        """,
        # vehicles and the road
        """
        car automobile taxi bus minibus trolleybus truck lorry van tractor ambulance engine train
        locomotive railway tram tramway monorail metro station bullet suspension cableway tramcar
        helicopter airplane aeroplane plane lunar scooter motorcycle motor motorized rickshaw
        bicycle bicycles bicyclist bike biking cyclist ship boat shooner sailboat speedboat ferry
        canoe rowing rowboat rocket saucer vehicle anchor traffic parachute sleigh racing rail
        subway caravan shuttle drone
        """,
        # plants
        """
        tree palm evergreen deciduous pine bamboo decoration leaf leaves herb shamrock clover
        cactus flower blossom bouquet rosette rose tulip hibiscus lotus hyacinth sunflower
        seedling plant wheat sheaf poppy oak umbrella desert park tanabata
        """,
        # what is worn
        """
        glove crown tiara princess prince gardens
        """,
        # tools, devices, and other things
        """
        hammer pick wrench spanner screwdriver saw toolbox scissors clamp chisel nail nut bolt
        gear cog key phone telephone smartphone cellphone mobile handset fax pager television tv
        computer personal laptop desktop trackball printer camera video projector movie film dvd
        cd optical floppy headset vr selfie satellite antenna speaker device technologist book
        notebook clock oclock thirty stopwatch watch timer alarm bulb heart hearts memo writing
        mechanic cinema ruby washing screen calculator virtual battery plug stereo flashlight
        electric edit interview geiger
        """,
    )
    for word in words.split()
)

#: Words that are found inside longer ones where a set writes its names without hyphens.
_INSIDE = re.compile("|".join(sorted(re.escape(word) for word in _WORDS if len(word) > 2)))


def is_kin(name: str) -> bool:
    """Return whether the drawing of this name shows one of our concepts, or what a group's word covers."""
    parts = {part.rstrip("0123456789") for part in re.split(r"[-_]", name.lower())}
    if (parts | {part.removesuffix("s") for part in parts}) & _WORDS:
        return True
    return not re.search(r"[-_]", name) and bool(_INSIDE.search(name.lower()))
