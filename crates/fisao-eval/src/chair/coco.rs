//! The eighty categories of COCO with the words people use for them.
//!
//! The list is the project's own. It is meant for strict rules: names of several words are names here,
//! plurals are added by rule, and phrases that hold an object's name but mean no such object are passed over.
//! Where a word is used for several categories ("plate", "glass", "glasses", "stand") it is left out, because a
//! mention it finds wrongly counts as a hallucination.

use super::ObjectVocabulary;

/// Category, and its other names separated by commas.
const CATEGORIES: [(&str, &str); 80] = [
    (
        "person",
        "human, human being, man, gentleman, guy, fellow, woman, lady, boy, girl, child, kid, baby, infant, \
         toddler, newborn, teenager, teen, youth, youngster, adult, grandmother, grandfather, grandma, \
         grandpa, mother, father, mom, mum, mommy, dad, daddy, parent, son, daughter, brother, sister, \
         husband, wife, bride, groom, friend, folk, pedestrian, passerby, bystander, onlooker, spectator, \
         passenger, traveler, traveller, tourist, visitor, customer, shopper, driver, rider, cyclist, \
         bicyclist, biker, motorcyclist, motorist, skier, snowboarder, skateboarder, skater, surfer, swimmer, \
         jogger, runner, hiker, climber, athlete, player, teammate, batter, hitter, pitcher, catcher, umpire, \
         referee, goalie, baseman, shortstop, outfielder, coach, cowboy, cowgirl, jockey, farmer, fisherman, \
         hunter, policeman, policewoman, police officer, cop, officer, soldier, sailor, guard, firefighter, \
         fireman, worker, workman, construction worker, businessman, businesswoman, employee, boss, chef, \
         baker, waiter, waitress, bartender, barista, vendor, salesman, doctor, nurse, dentist, teacher, \
         student, pupil, schoolgirl, schoolboy, musician, guitarist, singer, dancer, artist, photographer, \
         clown, priest, monk, nun, bridesmaid, groomsman, cameraman, male, female, individual, someone, \
         somebody, anyone",
    ),
    (
        "bicycle",
        "bike, mountain bike, road bike, push bike, tricycle, trike, unicycle, tandem bicycle",
    ),
    (
        "car",
        "automobile, motorcar, sedan, hatchback, coupe, convertible, station wagon, suv, jeep, minivan, van, \
         taxi, cab, taxicab, limousine, limo, sports car, race car, racecar, police car",
    ),
    (
        "motorcycle",
        "motorbike, motor bike, motor cycle, moped, scooter, motor scooter, vespa, dirt bike",
    ),
    (
        "airplane",
        "aeroplane, air plane, plane, aircraft, airliner, jetliner, jet, jumbo jet, passenger jet, passenger \
         plane, fighter jet, fighter plane, jet plane, biplane, monoplane, seaplane, propeller plane",
    ),
    (
        "bus",
        "minibus, school bus, tour bus, city bus, shuttle bus, double decker, double decker bus, omnibus, \
         trolleybus",
    ),
    (
        "train",
        "locomotive, railcar, rail car, train car, subway train, subway car, passenger train, freight train, \
         steam train, steam engine, commuter train, bullet train, tram, tramcar, streetcar",
    ),
    (
        "truck",
        "lorry, pickup, pickup truck, pick up truck, fire truck, firetruck, fire engine, tow truck, dump \
         truck, garbage truck, delivery truck, food truck, semi truck, box truck, tractor trailer, trailer \
         truck, eighteen wheeler, big rig, semi trailer",
    ),
    (
        "boat",
        "ship, sailboat, sailing boat, sail boat, rowboat, row boat, rowing boat, motorboat, motor boat, \
         speedboat, speed boat, fishing boat, canoe, kayak, dinghy, raft, yacht, ferry, ferryboat, gondola, \
         barge, tugboat, catamaran, houseboat, lifeboat, cruise ship, paddle boat, schooner, trawler, \
         battleship, steamboat, pontoon boat, cargo ship",
    ),
    (
        "traffic light",
        "traffic signal, stoplight, stop light, traffic lamp, street signal, signal light, pedestrian signal",
    ),
    ("fire hydrant", "hydrant, fire plug, fireplug"),
    ("stop sign", ""),
    ("parking meter", "parking metre"),
    ("bench", "park bench, pew"),
    (
        "bird",
        "seagull, gull, pigeon, dove, duck, duckling, mallard, goose, gosling, swan, cygnet, parrot, \
         parakeet, budgie, budgerigar, cockatoo, macaw, owl, eagle, hawk, falcon, osprey, vulture, crow, \
         raven, magpie, bluejay, sparrow, finch, robin, blackbird, kingfisher, woodpecker, hummingbird, \
         pelican, heron, egret, stork, ibis, flamingo, peacock, peahen, peafowl, pheasant, quail, ostrich, \
         emu, rooster, hen, penguin, puffin, cormorant, sandpiper, toucan, songbird, waterfowl, shorebird, \
         seabird, fowl, baby bird",
    ),
    (
        "cat",
        "kitten, kitty, feline, tomcat, tabby, tabby cat, house cat, siamese, calico cat, baby cat, adult cat",
    ),
    (
        "dog",
        "puppy, pup, pooch, doggy, doggie, canine, hound, mutt, mongrel, terrier, retriever, labrador, \
         poodle, collie, beagle, bulldog, dachshund, chihuahua, husky, corgi, pug, spaniel, dalmatian, \
         rottweiler, doberman, mastiff, greyhound, whippet, schnauzer, german shepherd, sheepdog, sheep dog, \
         great dane, saint bernard, pit bull, pitbull, shih tzu, baby dog, adult dog",
    ),
    (
        "horse",
        "pony, foal, colt, mare, stallion, racehorse, race horse, workhorse, draft horse, steed, clydesdale, \
         baby horse, adult horse",
    ),
    ("sheep", "lamb, ewe, ram, baby sheep, adult sheep"),
    (
        "cow",
        "cattle, bull, calf, heifer, ox, bovine, longhorn, holstein, dairy cow, baby cow, adult cow",
    ),
    ("elephant", "baby elephant, adult elephant, elephant calf"),
    (
        "bear",
        "grizzly, grizzly bear, brown bear, black bear, polar bear, bear cub, panda, panda bear, baby bear, \
         adult bear",
    ),
    ("zebra", "baby zebra, adult zebra, zebra foal"),
    ("giraffe", "baby giraffe, adult giraffe, giraffe calf"),
    ("backpack", "back pack, rucksack, knapsack, school bag, schoolbag, book bag"),
    ("umbrella", "parasol, sunshade"),
    ("handbag", "hand bag, purse, pocketbook, shoulder bag, tote, tote bag, clutch bag"),
    ("tie", "necktie, neck tie, bow tie, bowtie"),
    ("suitcase", "suit case, luggage, baggage, travel bag"),
    ("frisbee", "flying disc, flying disk"),
    ("skis", "ski, snow ski"),
    ("snowboard", "snow board"),
    (
        "sports ball",
        "ball, soccer ball, tennis ball, beach ball, rugby ball, cricket ball, golf ball, bowling ball",
    ),
    ("kite", ""),
    ("baseball bat", "bat, softball bat"),
    ("baseball glove", "baseball mitt, mitt"),
    ("skateboard", "skate board, longboard"),
    (
        "surfboard",
        "surf board, boogie board, body board, bodyboard, paddle board, paddleboard, wakeboard",
    ),
    ("tennis racket", "tennis racquet, racket, racquet"),
    ("bottle", "water bottle, wine bottle, beer bottle, flask"),
    ("wine glass", "wineglass, glass of wine, champagne glass, champagne flute, goblet, stemware"),
    ("cup", "mug, coffee cup, coffee mug, teacup, tea cup, tumbler, paper cup"),
    ("fork", "dinner fork, salad fork"),
    ("knife", "butter knife, steak knife, pocketknife, pocket knife, butcher knife"),
    ("spoon", "teaspoon, tablespoon, soup spoon, wooden spoon"),
    ("bowl", "soup bowl, salad bowl, mixing bowl"),
    ("banana", ""),
    ("apple", ""),
    (
        "sandwich",
        "hamburger, burger, cheeseburger, panini, club sandwich, sub sandwich, submarine sandwich, hoagie, \
         grilled cheese",
    ),
    ("orange", "mandarin, mandarin orange, tangerine, clementine, satsuma"),
    ("broccoli", "broccoli floret"),
    ("carrot", "baby carrot, carrot stick"),
    ("hot dog", "hotdog, frankfurter, corn dog, chili dog"),
    ("pizza", "pizza pie, slice of pizza, pizza slice"),
    ("donut", "doughnut, donut hole, doughnut hole"),
    (
        "cake",
        "cupcake, cheesecake, birthday cake, wedding cake, layer cake, shortcake, piece of cake, slice of \
         cake, carrot cake",
    ),
    (
        "chair",
        "armchair, arm chair, rocking chair, lawn chair, folding chair, office chair, high chair, highchair, \
         stool, bar stool, barstool, deck chair, beach chair, dining chair, seat",
    ),
    ("couch", "sofa, loveseat, love seat, settee, futon, divan, sectional sofa, sofa bed"),
    ("potted plant", "pot plant, house plant, houseplant, plant pot, potted tree, potted flower"),
    ("bed", "bunk bed, bunk, twin bed, double bed, queen bed, king bed, crib, hospital bed"),
    (
        "dining table",
        "table, dinner table, kitchen table, dining room table, coffee table, picnic table, desk, tabletop, \
         end table, side table",
    ),
    ("toilet", "toilet bowl, toilet seat, commode, urinal, loo"),
    (
        "tv",
        "television, telly, tv set, television set, tv screen, television screen, flat screen, flatscreen, \
         flat screen tv, monitor, computer monitor, computer screen",
    ),
    ("laptop", "laptop computer, notebook computer, macbook, netbook, chromebook"),
    ("mouse", "computer mouse, wireless mouse, pc mouse"),
    (
        "remote",
        "remote control, remote controller, tv remote, television remote, wii remote, wii controller, game \
         controller, wiimote, nintendo wii controller, video game controller",
    ),
    ("keyboard", "computer keyboard, wireless keyboard"),
    (
        "cell phone",
        "cellphone, mobile phone, smartphone, smart phone, iphone, phone, telephone, cellular phone, flip \
         phone, cellular telephone",
    ),
    ("microwave", "microwave oven"),
    ("oven", "stove, stovetop, stove top, stove top oven, cooker, toaster oven"),
    ("toaster", ""),
    ("sink", "washbasin, wash basin, basin, bathroom sink, kitchen sink, washstand"),
    ("refrigerator", "fridge, freezer, icebox"),
    ("book", "paperback, hardcover, textbook, cookbook, storybook"),
    ("clock", "alarm clock, grandfather clock, clock face, clockface, timepiece"),
    ("vase", ""),
    ("scissors", "scissor, shears"),
    ("teddy bear", "teddybear, teddy, stuffed bear, toy bear, stuffed teddy bear, plush bear"),
    ("hair drier", "hair dryer, hairdryer, hairdrier, blow dryer, blow drier"),
    ("toothbrush", "tooth brush, electric toothbrush"),
];

/// Phrases with an object's name in them that say nothing of such an object.
const NEUTRAL: &str = "train track, train station, train platform, train yard, bus stop, bus station, bus shelter, bus lane, \
      bus terminal, car park, car seat, car lot, car wash, boat house, boat ramp, boat dock, bike lane, bike \
      path, bike rack, bike trail, bike seat, bicycle lane, bicycle rack, bicycle path, bicycle seat, dog \
      house, dog bed, dog bowl, dog food, dog collar, dog leash, dog park, cat food, cat bed, bird house, \
      bird feeder, bird cage, bird bath, horse stable, horse trailer, sheep pen, cow pasture, kid friendly, \
      orange juice, orange color, orange colour, orange hue, orange shirt, orange jacket, orange vest, orange \
      light, orange sky, orange cone, orange and white, orange and black, orange and yellow, orange and red, \
      orange and blue, bright orange, yellow and orange, red and orange, black and orange, apple juice, apple \
      pie, apple logo, apple tree, orange tree, banana bread, banana tree, banana leaf, pizza box, pizza \
      cutter, pizza parlor, cake pan, cake stand, cake mix, bottle opener, bottle cap, cup holder, book \
      shelf, book case, bed sheet, bed frame, flower bed, truck bed, river bed, table cloth, table tennis, \
      table lamp, toilet paper, toilet brush, toilet tissue, toilet roll, phone booth, telephone booth, \
      telephone pole, telephone line, phone line, phone pole, telephone wire, tie dye, mouse pad, ball game, \
      ball field, ball park, kite string, ski lift, ski slope, ski resort, ski pole, ski boot, ski pants, ski \
      jacket, ski goggles, ski lodge, ski trail, ski jump, ski run, ski gear, seat belt, seat cushion, oven \
      mitt, oven glove, bear hug, umbrella stand, chair lift, knife block, duck pond, horse drawn, river \
      basin, remote area, remote location, remote island, remote village, remote beach, zebra crossing, zebra \
      print, zebra stripe, giraffe print, cow print, jet lag, jet ski, jet stream, man made, baby carriage, \
      baby stroller, baby blanket, baby shower, baby food, baby goat, baby pig, baby monkey, record player, \
      dvd player, cd player, music player, pitcher of water, pitcher of beer, water pitcher, guard rail, \
      cowboy hat, cowboy boot, cable car";

impl ObjectVocabulary {
    /// COCO's eighty categories with common English names for them, for strict rules. Reference rules want the
    /// published list of synonyms, see [`super::read_synonyms`].
    pub fn coco() -> Self {
        let list = |text: &str| -> Vec<String> {
            text.split(", ").filter(|form| !form.is_empty()).map(str::to_owned).collect()
        };
        let entries =
            CATEGORIES.iter().map(|(category, forms)| ((*category).to_owned(), list(forms)));
        Self::with_neutral(entries.collect(), list(NEUTRAL))
            .expect("a list without a word twice, which a test reads")
    }
}
