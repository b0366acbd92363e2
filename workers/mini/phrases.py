"""The phrases that composed policies are made of; `unseen` ones are kept for evaluation and never trained on."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Phrases:
    """Several ways to say one thing: those to train on, and those kept for evaluation."""

    trained: tuple[str, ...]
    unseen: tuple[str, ...]


SHOWS = Phrases(
    (
        "Shows {x}.", "Shows {x}.", "Shows {x} in any way.", "The picture shows {x}.", "An image of {x}.", "Pictures of {x}.",
        "Depicts {x}.", "Contains {x}.", "There is {x} in the picture.", "{X} can be seen.", "Any sight of {x}.",
        "Displays {x}.", "Photos or drawings with {x}.", "{X}.", "Features {x}.", "{X} in the image.",
        "Presents {x} to the viewer.", "Content with {x}.", "Visible {x}.", "The upload includes {x}.",
        "Users may not post {x}.", "We do not allow {x}.", "Posting {x}.", "Media with {x} in it.",
        "Shows {x}, drawn or photographed.", "It must not show {x}.", "Has {x} in it.", "Shows or displays {x}.",
        "{X} is in the picture.", "Images that show {x}.", "Realistic or drawn {x}.", "Uploads that contain {x}.",
        "Imagery of {x}.", "Someone can see {x} here.", "The drawing has {x}.", "Close-up of {x}.", "Shows people with {x}.",
        "Shows use of {x}.", "Shows the use of {x}.", "Use or sight of {x}.", "Shows something like {x}.", "Graphic pictures of {x}.", "Shows {x} outside of a shop.",
        "Posts {x} for others to see.", "The photo contains {x}.", "Displays or features {x}.",
    ),
    (
        "Pictures in which {x} can be seen.", "The image contains {x}.", "Do not post pictures that show {x}.",
        "Any photo that features {x}.", "{X} shown in the upload.", "Includes the sight of {x}.",
    ),
)  # fmt: skip
SHOWS_ASK = Phrases(
    (
        "Does this upload show {x}?", "Is there {x} in the picture?", "Does the image contain {x}?", "Can {x} be seen?",
        "Does the picture show {x}?", "Is {x} visible?", "Do you see {x}?", "Does this post display {x}?",
        "Does it depict {x}?", "Is {x} in this image?", "Does this image feature {x}?", "Does the upload contain {x}?",
        "Does the photo include {x}?", "Is this a picture of {x}?", "Does this upload show or sell {x}?",
    ),
    ("Can one see {x} in this picture?", "Does this photo contain {x}?", "Is {x} shown in the image?", "Do we see {x}?"),
)  # fmt: skip
RULE_ASK = Phrases(
    (
        "Does this upload break the rule on {x}?", "Is this against our rules on {x}?", "Does this break our policy?",
        "Is one of these things true of the upload?", "Does any clause apply?", "Is this forbidden?",
        "Does this upload fall under the policy on {x}?", "Our policy on {x}: is it broken?", "Should this be removed?",
        "Does this upload go against the rules?", "Is the policy on {x} broken here?", "Is this upload forbidden?",
    ),
    ("Is this against the policy on {x}?", "Does the upload fall under one of the clauses?", "Is the rule on {x} broken?"),
)  # fmt: skip
LACKS = Phrases(
    (
        "Does not show {x}.", "Shows no {x}.", "Lacks {x}.", "Pictures without {x}.", "There is no {x} in the picture.",
        "{X} is missing.", "{X} cannot be seen.", "Anything that does not contain {x}.", "Fails to show {x}.",
        "The image does not contain {x}.", "Uploads without {x}.", "Does not depict {x}.", "No {x} in the image.",
        "{X} is absent.", "Contains no {x}.", "Is not a picture of {x}.", "Anything but {x}.", "Anything except {x}.",
        "Everything other than {x}.", "{X} is not in the picture.", "Every upload that lacks {x}.", "Has no {x} in it.",
    ),
    (
        "The picture does not show {x}.", "Images without {x}.", "{X} is not visible.", "The upload contains no {x}.",
        "There is no {x} to be seen.",
    ),
)  # fmt: skip
LACKS_ASK = Phrases(
    (
        "Is {x} missing?", "Does this upload lack {x}?", "Does the picture fail to show {x}?", "Is there no {x} here?",
        "Is this a picture without {x}?", "Is {x} absent?", "Does the upload not show {x}?", "Is it anything but {x}?",
        "Does the image contain no {x}?",
    ),
    ("Is {x} missing from the picture?", "Does this image lack {x}?", "Is there no {x} in the image?"),
)  # fmt: skip
ALL = Phrases(
    (
        "Anything.",
        "Everything.",
        "Any upload at all.",
        "All pictures.",
        "Every image.",
        "All uploads.",
        "Any content.",
        "Every picture that users post.",
        "All of it.",
    ),
    ("Any picture at all.", "Every upload.", "All content."),
)
EXEMPT = Phrases(
    (
        "{X}.",
        "{X}.",
        "{X}.",
        "{X} are allowed.",
        "Pictures of {x}.",
        "Not where it is {x}.",
        "Content with {x} is fine.",
        "{X} may be shown.",
        "Exception: {x}.",
        "{X} in ordinary use.",
        "Ordinary {x}.",
        "Anything about {x}.",
        "Where there is {x}.",
        "Uploads with {x}.",
        "It is fine to show {x}.",
        "{X}, as long as nobody is harmed.",
        "Shows {x}.",
    ),
    ("{X} are fine.", "Uploads about {x}.", "Content that shows {x}.", "{X} can be posted."),
)
MENTIONS = Phrases(
    (
        "The caption names {x}.",
        "The caption mentions {x}.",
        "Writes about {x}.",
        "The text speaks of {x}.",
        "The caption is about {x}.",
        "Talks about {x} in the caption.",
        "The words mention {x}.",
        "Names {x} in the text.",
        "A caption about {x}.",
    ),
    ("The text names {x}.", "The caption speaks of {x}.", "Mentions {x} in the caption."),
)
TOGETHER = Phrases(
    (
        "Shows {x} together with {y}.",
        "Shows {x} beside {y}.",
        "{X} next to {y}.",
        "{X} and {y} in one picture.",
        "Both {x} and {y} can be seen.",
        "Shows {x} near {y}.",
        "Combines {x} with {y}.",
        "{X} where {y} is also seen.",
        "Shows both {x} and {y}.",
        "{X} in the presence of {y}.",
    ),
    ("{X} together with {y} in the picture.", "Shows {x} and {y} at once.", "{X} seen beside {y}."),
)
ABOUT = {
    "sell": Phrases(
        (
            "Offers {x} for sale, swap or gift.", "Sells {x}.", "Tries to sell {x}.", "Offers {x} for sale.",
            "Asks people to buy {x}.", "{X} with a price or an offer to sell.", "Trades or gives away {x}.", "Sale of {x}.",
            "Advertises {x} for sale.", "Markets {x} to buyers.", "Deals in {x}.", "Offers to sell or trade {x}.",
            "{X} for sale.", "Buying or selling {x}.", "Sells, swaps or gives away {x}.", "Puts {x} up for sale.",
            "Solicits the purchase of {x}.", "Offers {x} for money.", "Sells or supplies {x}.", "Invites people to order {x}.",
            "Sale, trade or gift of {x}.",
        ),
        ("Offers to sell {x}.", "The author sells {x}.", "Asks for money for {x}.", "Trade in {x}."),
    ),
    "promote": Phrases(
        (
            "Promotes {x}.", "Encourages people to try {x}.", "Recommends {x}.", "Praises {x}.", "Invites people to use {x}.",
            "Makes {x} look good.", "Tells others to try {x}.", "Promotes the use of {x}.", "Encourages the use of {x}.",
            "Glamorises {x}.", "Invites others to {x}.",
        ),
        ("Recommends that people try {x}.", "Encourages {x}.", "Praises or promotes {x}."),
    ),
    "advertise": Phrases(
        (
            "Advertises {x}.", "Sells or promotes {x}.", "Advertising for {x}.", "An advertisement for {x}.",
            "Markets or sells {x}.", "Promotes or sells {x}.", "Offers or recommends {x}.",
        ),
        ("Adverts for {x}.", "Offers or promotes {x}."),
    ),
    "threat": Phrases(
        (
            "Threatens a person or a place with {x}.", "Threatens someone with {x}.", "Threatens somebody with {x}.", "Threatens people while showing {x}.",
            "A threat together with {x}.", "{X} beside a threat.", "Threatens to use {x} on someone.",
            "Uses {x} to threaten a person.",
        ),
        ("Threatens a person with {x}.", "A threat made with {x}."),
    ),
    "glorify": Phrases(
        (
            "Glorifies harm done to people with {x}.", "Glorifies violence with {x}.", "Praises harm done with {x}.",
            "Celebrates violence beside {x}.", "Glorifies harm together with {x}.", "Enjoys violence done with {x}.",
        ),
        ("Praises violence done with {x}.", "Glorifies harm done with {x}."),
    ),
}  # fmt: skip
TOPIC_GROUPS = {
    "scam": ("scam_prize", "scam_code", "scam_money"),
    "harm_self": ("selfharm", "selfharm_urge"),
    "violence": ("threat", "glorify"),
    "abuse": ("insult", "threat"),
    "junk": ("spam", "scam_prize"),
}
TOPIC_CLAUSES = {
    "sell": Phrases(
        (
            "Offers something for sale.", "Sells goods.", "The caption sells something.", "Any offer to sell or swap.",
            "Tries to sell things.", "Names a price for something.", "Commercial offers.", "The author wants to sell something.",
        ),
        ("The caption offers something for sale.", "Asks people to buy something."),
    ),
    "promote": Phrases(
        ("Recommends something to others.", "Tells others to try something.", "Promotes a thing.", "Praises a thing to others."),
        ("Promotes something to others.",),
    ),
    "threat": Phrases(
        (
            "Threatens a person.", "Threatens a person or a place.", "Threatens someone with violence.",
            "Says that someone will be hurt.", "Announces an attack.", "Threats of violence in the caption.",
            "Threatens to hurt or kill someone.", "Warns a person of harm to come.", "Credible threats against people or places.",
            "Threatens harm to somebody.", "The caption is a threat.", "A threat to hurt, kill or attack.",
            "Intimidates somebody with threats.", "Threatens to hurt somebody.", "Threatens somebody in the caption.", "Threatens violence, or says that an attack is planned.",
        ),
        ("The caption threatens somebody.", "Says that a person will be attacked.", "Threatens to harm a person."),
    ),
    "insult": Phrases(
        (
            "Insults a person.", "Calls someone names.", "Harasses or bullies somebody.", "Demeaning words about a person.",
            "Mocks a person's looks or mind.", "Attacks a person with words.", "Abusive language toward a person.",
            "Insults, mocks or demeans someone.", "Bullying.", "Insults someone in the caption.", "Degrades or humiliates a person.",
            "Targets a person with insults or abuse.", "Hateful words about someone.", "Calls a person stupid, ugly or worthless.",
            "Harassment of a person.", "Name-calling or insults.", "Insults somebody.", "Insults somebody in the caption.",
        ),
        ("Insults or mocks somebody.", "The caption harasses a person.", "Abusive words about someone."),
    ),
    "scam_prize": Phrases(
        (
            "Promises a prize that has to be claimed.", "Says that the reader has won something.", "Fake prizes and gifts.",
            "Promises a prize or a gift for a click.", "Asks people to click a link to win.", "A false reward or lottery.",
            "Says that somebody won a prize and must click.", "Tells the reader of a win or a prize behind a link.",
        ),
        ("Promises a prize to the reader.", "Says that a reward waits behind a link."),
    ),
    "scam_code": Phrases(
        (
            "Asks for a password or a code.", "Asks for bank or card details.", "Phishing for login data.",
            "Tries to get a password, PIN or code.", "Pretends to be a bank or support to get data.",
            "Asks the reader to confirm an account.", "Asks for codes, passwords or account access.", "Steals account details.",
            "Asks for a code, a password or a bank card.", "Wants a code or a bank card number.",
        ),
        ("Asks the reader for a code or password.", "Tries to get login data."),
    ),
    "scam_money": Phrases(
        (
            "Asks for money up front.", "Promises to double money.", "Promises profit without risk.",
            "Promises guaranteed returns or asks for a fee first.", "Asks to pay a fee before a payment.",
            "Get-rich-quick offers.", "False investments.", "Asks for money upfront.", "Wants a payment upfront.", "Promises easy money.", "Guaranteed profit or money in advance.",
        ),
        ("Promises guaranteed profit.", "Asks the reader to send money first."),
    ),
    "scam": Phrases(
        (
            "Tries to trick people out of money or data.", "Scams and fraud.", "A scam.", "Tricks the reader with false promises.",
            "Promises a prize, asks for a code or for money first.", "Fraud: prizes, fees, passwords.",
            "Deceives people to get their money or accounts.", "Cheats people out of money, codes or prizes.",
            "Asks for money upfront or for a code, or promises a prize.", "Tries to cheat people.", "Fraudulent offers, prizes or phishing.",
        ),
        ("Tries to get money or data by a trick.", "A fraud or scam in the caption."),
    ),
    "spam": Phrases(
        (
            "Begs for likes or followers.", "Spam.", "Asks for likes, follows or shares.", "Trades likes or followers.",
            "Artificial engagement.", "Asks people to follow a page or visit a profile.", "Repetitive advertising of a profile.",
        ),
        ("Asks for follows or likes.", "Spam for a page or profile."),
    ),
    "junk": Phrases(
        ("Spam or fake prizes.", "Junk: likes, followers, prizes.", "Unwanted spam and false rewards."),
        ("Spam and false prizes.",),
    ),
    "selfharm": Phrases(
        (
            "Says that the author wants to die.", "Speaks of hurting oneself.", "Expresses a wish to die or to hurt oneself.",
            "The author may hurt themself.", "Talk of suicide or self-harm.", "Announces suicide or self-harm.",
            "Someone says that they want to end their life.", "A person at risk of suicide.", "Signs that the author is in despair.",
        ),
        ("The author wishes to die.", "Says that the author will hurt themself."),
    ),
    "selfharm_urge": Phrases(
        (
            "Encourages suicide or self-harm.", "Tells someone to hurt themself.", "Urges a person to end their life.",
            "Promotes self-harm.", "Says that someone should kill themself.", "Encourages people to hurt themselves.",
        ),
        ("Tells a person to end their life.", "Urges self-harm on someone."),
    ),
    "harm_self": Phrases(
        (
            "Suicide or self-harm.", "Speaks of or encourages self-harm.", "Self-harm in any form.",
            "Wishes for or urges suicide.", "Content about suicide and self-harm.",
        ),
        ("Speaks of suicide or self-harm.",),
    ),
    "glorify": Phrases(
        (
            "Glorifies violence.", "Praises harm done to people.", "Celebrates killing or an attack.", "Enjoys the suffering of others.",
            "Takes joy in blood or death.", "Glorifies harm or suffering.", "Praises a killer or an attack.",
            "Celebrates or enjoys violence.", "Delights in violence or death.",
        ),
        ("Enjoys or praises violence.", "Celebrates harm done to people."),
    ),
    "violence": Phrases(
        ("Violent speech of any kind.", "Threatens or glorifies violence.", "Threats, or praise of violence."),
        ("Violent words in the caption.",),
    ),
    "abuse": Phrases(
        ("Insults or threats.", "Abuse of any kind.", "Insults or threatens somebody.", "Attacks a person by insult or threat."),
        ("Insults or threatens a person.",),
    ),
    "drunk": Phrases(
        (
            "Says that someone is drunk or high.", "Talks of getting drunk or high.", "Intoxication.",
            "Boasts about drinking or drugs.", "Encourages getting drunk or high.",
        ),
        ("Says that the author is drunk or high.",),
    ),
    "bet": Phrases(
        (
            "Invites people to bet.", "Advertises a casino or bets.", "Invites people to gamble.", "Promises wins at a casino.",
            "Promotes betting or a casino.", "Asks people to place bets.", "Offers games for money.",
        ),
        ("Invites the reader to gamble or bet.", "Promotes a casino."),
    ),
    "adult": Phrases(
        (
            "Offers sexual content.", "Asks people to subscribe to adult photos.", "Sexual solicitation.",
            "Advertises adult content.", "Offers private or spicy pictures.", "Seeks sexual contact.",
        ),
        ("Offers adult pictures.",),
    ),
}  # fmt: skip
TOPIC_ASK = {
    "sell": Phrases(("Does the caption sell something?", "Is something offered for sale?"), ("Is something sold here?",)),
    "promote": Phrases(("Does the caption recommend something?",), ("Is something promoted?",)),
    "threat": Phrases(
        ("Does this upload threaten somebody?", "Is there a threat of violence?", "Does the caption threaten a person?"),
        ("Is somebody threatened?",),
    ),
    "insult": Phrases(
        ("Does this upload insult or harass a person?", "Is this harassment?", "Does the caption insult someone?", "Does this bully someone?"),
        ("Is a person insulted?",),
    ),
    "scam_prize": Phrases(("Does it promise a prize?", "Is this a fake prize?"), ("Is a prize promised?",)),
    "scam_code": Phrases(("Does it ask for a password or code?", "Is this phishing?"), ("Is a code asked for?",)),
    "scam_money": Phrases(("Does it ask for money or promise profit?", "Is this a false investment?"), ("Is profit promised?",)),
    "scam": Phrases(
        ("Is this a scam?", "Does this upload try to cheat people out of money or data?", "Does this upload try to trick people out of money or data?", "Is this fraud?"),
        ("Does this try to cheat people?",),
    ),
    "spam": Phrases(("Is this spam?", "Does it ask for likes or followers?"), ("Does it beg for follows?",)),
    "junk": Phrases(("Is this junk?",), ("Is this junk or spam?",)),
    "selfharm": Phrases(
        ("Does the author want to hurt themself?", "Is the author at risk?", "Does this upload speak of suicide or self-harm?"),
        ("Is the author in danger?",),
    ),
    "selfharm_urge": Phrases(("Does it urge someone to hurt themself?", "Does this encourage suicide?"), ("Does it urge self-harm?",)),
    "harm_self": Phrases(("Is this about suicide or self-harm?", "Does this upload promote or show self-harm?"), ("Is self-harm a topic here?",)),
    "glorify": Phrases(("Does this glorify violence?", "Does this upload celebrate harm?"), ("Is violence praised?",)),
    "violence": Phrases(("Is this violent speech?", "Does it threaten or glorify violence?"), ("Are the words violent?",)),
    "abuse": Phrases(("Is this abuse?", "Does this upload abuse a person?"), ("Is somebody abused?",)),
    "drunk": Phrases(("Is somebody drunk or high?", "Does it boast of drinking or drugs?"), ("Is the author drunk or high?",)),
    "bet": Phrases(("Does this upload invite people to gamble?", "Is this an advertisement for a casino?"), ("Are bets offered?",)),
    "adult": Phrases(("Does this upload offer adult content?", "Is this sexual solicitation?"), ("Is adult content offered?",)),
}  # fmt: skip
CONTEXT_NAMES = {
    "news": ("news reporting", "news", "documentary reporting", "press reports", "news and documentary reporting", "journalism"),
    "museum": ("museums", "art", "works of art", "museum pieces", "historical objects", "paintings and sculpture", "museums and art"),
    "lesson": ("education", "safety advice", "education about it", "education that warns of it", "prevention", "lessons", "educational content", "awareness campaigns", "warnings"),
    "cooking": ("cooking", "recipes", "cooking and kitchens", "the preparation of food", "kitchen work"),
    "prop": ("film props", "games", "costumes", "film and theatre", "video games", "fiction", "a film or a game", "a line from a film", "film props and games", "props and costumes"),
    "recovery": ("recovery", "help and support", "getting help", "help with recovery", "support for people in need", "help for people who are harassed", "recovery stories", "helplines"),
    "sell": ("ordinary offers", "an ordinary offer of a thing for sale", "offers of goods", "sales of things"),
    "medical": ("medical use", "medicine and health care", "doctors and hospitals", "prescriptions", "medical treatment"),
}  # fmt: skip
