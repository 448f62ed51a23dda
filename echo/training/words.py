"""Common English words by kind, written for this corpus; forms are made by :mod:`.texts`."""

# Countable nouns, singular.
NOUNS = """
apple arm army artist aunt baby bag baker ball banana band bank barn basket bath battle beach bean
bear beard bed bee bell belt bench berry bicycle bike bill bird biscuit blanket block boat body bolt
bone book boot border boss bottle bowl box boy bracelet brain branch brick bridge broom brother brush
bubble bucket building bus bush butcher butterfly button cabin cabinet cable cage cake calendar calf
camel camera camp candle captain car card carpenter carpet carrot cart castle cat cave ceiling chain
chair chalk chapter cheek cherry chest chicken chief child chimney chin church circle citizen city
classroom clerk clock closet cloud clown coach coast coat coin collar color comb comet computer cook
cookie corner cottage cousin cow crab creature crow crowd crown cup cupboard curtain curve cushion
dancer daughter day deer dentist desk diamond dinner doctor dog doll dollar dolphin donkey door dragon
drawer drawing dream dress driver drop drum duck eagle ear edge egg elbow elephant engine engineer
envelope evening exam eye face factory farm farmer father feather fence festival field finger fire
fish flag flame floor flower fly folder foot forest fork fox frame friend frog game garage garden
gardener gate ghost giant gift giraffe girl glass glove goal goat goose grandfather grandmother
grape grasshopper group guard guest guide guitar gun hall hammer hand handle harbor hat hawk head
heart hedge heel helmet hen hero hill hole holiday home hook horn horse hospital hotel hour house
hunter husband insect island jacket jar jaw jewel job joke journey judge jug juice jungle kettle key
king kitchen kite kitten knee knife knight knot ladder lady lake lamb lamp lantern law lawyer leader
leaf leg lemon lesson letter library lid light lighthouse line lion lip list lizard lock log lorry
machine magazine magnet man map market mask match meadow meal medal meeting melon member message
meter microphone mile mill minister minute mirror mistake model monkey monster month moon morning
mosquito mother motor mountain mouse mouth movie mug museum mushroom musician nail name napkin neck
necklace needle neighbor nephew nest net newspaper niece night noise nose note notebook number nurse
oak ocean office officer onion orange orchard ostrich oven owl owner page painter pair palace pan
panda parade parent park parrot party passenger path patient pea peach pear pen pencil penguin person
phone photo piano picture pie pig pigeon pillow pilot pipe pirate place plane planet plant plate
player plum pocket poem poet pond pony pool poster pot potato present president priest prince
princess prize problem professor puddle pumpkin puppet puppy purse puzzle queen question rabbit race
radio railway rainbow rat recipe reporter restaurant ribbon ring river road robot rock roof room rope
rose route rug ruler sack sailor salad sandwich sausage saw scarf school scientist scissor screen sea
season seat secret seed servant shadow shark shed sheet shelf shell shepherd ship shirt shoe shop
shoulder shovel shower sign singer sink sister skirt sky slipper smile snail snake sock soldier son
song sound soup spider spoon spot square squirrel stable stage stair stamp star station statue step
stick stone stool store storm story stove stranger stream street student suitcase summer sweater swan
sword table tail tailor tale taxi teacher team telephone temple tent test theater thief thing thumb
ticket tie tiger toe tomato tongue tool tooth towel tower town toy tractor train tray treasure tree
trick trip trousers truck trumpet trunk tub tunnel turkey turtle twin umbrella uncle vase vegetable
village violin visitor voice volcano wagon waiter wall wallet watch wave weapon week whale wheel
whistle wife window wing winner winter witch wolf woman word worker world worm wrist writer yard year
zebra zoo accident account address adventure afternoon airport alarm album alley anchor angel angle
animal answer apartment application argument article attempt audience author avenue award badge
balcony bargain bathroom battery beast bedroom beginning bishop blade board bonus bowman breeze bride
budget bulb bullet cafe campaign canal cannon canoe career cartoon catalogue cellar center century
champion channel charm chart choice choir cinema client cliff club colony column comedy committee
company concert contest contract convict cottonwood council counter country couple course court
cradle craft crane crew crime crisis critic cross culture customer cycle danger date deal debate
decade decision defense degree department detail device diary dictionary difference dinosaur director
disaster discovery dish district document drama duke editor effect effort election elevator emperor
employee enemy error escape event example exercise exit expert export factor failure fairy fashion
fault favor feature fever fiction figure film firefighter flight flock flood flute fountain freezer
function funeral future gallery gang gap gem general giggle glance globe grain grave guess habit
harvest helicopter hint hobby host human idea illness image impact inch industry injury instrument
interview invention item jail jet joint journal jury kid kingdom laboratory lake landlord language
lawn layer league lecture legend level liar limit link load lobby machine manager mechanic memory
menu merchant method midnight miner mission mixture moment monument mood mosaic motion movement
muscle mystery nation nerve nightmare novel object odor opinion opportunity orbit order organ outcome
package paragraph partner passage pattern paw pension period phrase picnic piece pillar pitch plan
platform pleasure plot point policeman pool population portrait position pound power prayer prisoner
product profit program project promise protest purpose quarter quilt quiz rack ranch rate razor
reason receipt record region relative report request result reward rhythm riddle risk rival robber
rocket role routine rumor salesman sample satellite scale scene schedule scratch sculpture secretary
section sentence series session shape shelter shock shortcut signal site skill sleeve slice slope
society solution source space speaker speech spirit sponge sport stain standard statement stitch
stomach stranger strategy stripe studio subject success suit surface surgeon surprise survey switch
symbol system tablet talent target task taste teenager temperature term territory theory thought
thread threat title topic total tournament track trade tradition trail treatment triangle tribe
trophy tune type uniform union university upset valley value vehicle version victim victory video
view virus vision volume voyage wage wedding weekend whisker width wizard workshop wound wreck zone
""".split()

# Nouns of things that are not counted.
MASS_NOUNS = """
advice air anger art bacon beauty beef blood bread breakfast butter cash cheese chocolate clay cloth
clothing coal coffee cotton courage cream darkness dirt dust education electricity energy equipment
evidence flesh flour fog food freedom fruit fun furniture gas glue gold grass gravity growth hair
happiness health heat help history homework honey hope ice information ink iron jam jelly joy justice
knowledge laughter laziness leather lightning love luck luggage lunch magic mail mathematics meat
medicine milk money moonlight mud music nature news nonsense oil oxygen pain paint paper patience
peace pepper physics plastic poetry poverty pride progress rain rice rubber rust safety salt sand
science shade silence silk silver smoke snow soap soil speed spring steam steel strength sugar
sunshine tea thunder time toast tobacco traffic travel trouble truth velvet vinegar warmth water
weather wheat wine wisdom wood wool work youth
""".split()

PEOPLE = """
aunt author baby baker boss boy brother butcher captain carpenter chief child clerk clown coach cook
cousin dancer daughter dentist doctor driver editor engineer farmer father friend gardener girl
grandfather grandmother guard guest hunter husband judge king knight lady lawyer leader man manager
mechanic merchant miner mother musician neighbor nephew niece nurse officer painter parent partner
passenger patient pilot pirate player poet policeman president priest prince princess professor queen
reporter robber sailor scientist secretary servant shepherd singer sister soldier son stranger student
surgeon tailor teacher teenager thief twin uncle visitor waiter wife winner witch wizard woman worker
writer
""".split()

# Regular verbs with an object; "-" after the ones that double their last letter.
VERBS = """
accept admire admit- adopt advise allow announce annoy answer appreciate approve arrange arrest ask
attach attack avoid bake balance ban- bathe beg- blame bless boil borrow bounce brush bury call camp
cancel capture carry carve cause change charge chase chew choke claim clean climb close collect color
comb compare complete confuse connect consider contain control- cook copy correct cough count cover
crack crash create cross crush cure damage deceive decide decorate defend delay deliver describe
deserve design destroy detect develop discover discuss dislike divide double doubt drag- drain drop-
dry dust earn educate empty encourage enjoy enter escape examine excite excuse explain explore fasten
fetch fill film finish fix fold follow force frighten fry gather glue grab- greet guard guess guide
hammer handle hate heal heat help hook hug- hunt identify ignore imagine improve include increase
influence inform inject instruct introduce invent invite iron join judge juggle kick kill kiss knock
label launch learn lick lift like listen load lock love manage mark match measure melt mend mention
miss mix move multiply nail name need notice number obey observe offer open order organize own
pack paint park pass paste pause perform phone pick pinch place plan- plant please point poke polish
pour practice praise prefer- prepare present preserve press prevent produce promise protect provide
pull pump punish purchase push question race raise reach realize receive recognize record recover
reduce refuse reject release remember remind remove repair repeat replace report rescue return reward
rinse rob- roll rub- ruin rush satisfy save scare scatter scratch scrub- search separate serve settle
share shave shock shovel slap- smash smell solve spill spoil spray squash squeeze stamp start steer
stir- stop- store strengthen stretch strip- study supply support surprise surround suspect switch
taste tease test thank tie time touch tow trace trade train transport trap- treat trick trip- trust
try tug- turn twist use visit wait walk want warm warn wash watch water wave weigh welcome whip-
whisper wipe wrap- wreck
""".split()

# base, past, participle
IRREGULAR_VERBS = """
beat beat beaten/ bite bit bitten/ break broke broken/ bring brought brought/ build built built/
burn burnt burnt/ buy bought bought/ catch caught caught/ choose chose chosen/ cut cut cut/
dig dug dug/ draw drew drawn/ drink drank drunk/ drive drove driven/ eat ate eaten/ feed fed fed/
feel felt felt/ find found found/ forget forgot forgotten/ forgive forgave forgiven/ get got gotten/
give gave given/ hang hung hung/ have had had/ hear heard heard/ hide hid hidden/ hit hit hit/
hold held held/ hurt hurt hurt/ keep kept kept/ know knew known/ lay laid laid/ lead led led/
leave left left/ lend lent lent/ let let let/ lose lost lost/ make made made/ meet met met/
mean meant meant/ pay paid paid/ put put put/ read read read/ ride rode ridden/ ring rang rung/
say said said/ see saw seen/ sell sold sold/ send sent sent/ set set set/ shake shook shaken/
shoot shot shot/ show showed shown/ shut shut shut/ sing sang sung/ spend spent spent/
spin spun spun/ spread spread spread/ steal stole stolen/ stick stuck stuck/ sweep swept swept/
swing swung swung/ take took taken/ teach taught taught/ tear tore torn/ tell told told/
throw threw thrown/ understand understood understood/ wear wore worn/ win won won/ write wrote written
"""

# Verbs without an object: base, past; regular where one word.
MOTION_VERBS = """
agree/ appear/ argue/ arrive/ begin began/ belong/ blow blew/ breathe/ bow/ come came/ complain/
continue/ crawl/ cry/ dance/ depend/ die/ disagree/ disappear/ dream/ fade/ fail/ fall fell/ faint/
fight fought/ float/ flow/ fly flew/ freeze froze/ go went/ grow grew/ gallop/ happen/ hurry/
hesitate/ jog jogged/ jump/ kneel knelt/ land/ last/ laugh/ lean/ lie lay/ live/ look/ march/ nod nodded/
play/ pray/ race/ reply/ rest/ rise rose/ run ran/ rush/ sail/ scream/ shine shone/ shiver/ shout/
sigh/ sink sank/ sit sat/ skate/ ski/ skip skipped/ sleep slept/ slide slid/ slip slipped/ smile/
smoke/ sneeze/ snore/ speak spoke/ stand stood/ stare/ stay/ stumble/ suffer/ swim swam/ talk/
think thought/ travel/ tremble/ vanish/ wake woke/ wander/ weep wept/ whistle/ wink/ wonder/ work/
worry/ yawn/ yell
"""

ADJECTIVES = """
absent active afraid alive alone amazing ancient angry anxious asleep awake awful awkward bad bald
bare beautiful best better big bitter black blank blind blue bold boring brave brief bright brilliant
broad broken brown busy calm careful careless central cheap cheerful chilly clean clear clever close
cloudy clumsy cold colorful comfortable common complete confident cool correct costly crazy cruel
curious curly current damp dangerous dark dead deaf dear deep delicate delicious different difficult
dirty distant double dry dull eager early easy elegant electric elderly empty endless enormous equal
evil exact excellent excited expensive extra faint fair faithful false familiar famous fancy fast fat
fierce final fine firm first flat foolish foreign formal fragile free frequent fresh friendly front
frozen full funny gentle genuine giant glad golden good grand grateful gray great greedy green guilty
handsome handy happy hard harmless healthy heavy helpful high hollow holy honest hopeful horrible hot
huge humble hungry icy ideal idle ill important impossible innocent intelligent jealous jolly juicy
keen kind large last late lazy left legal light likely little lively local lonely long loose lost
loud lovely low loyal lucky mad main major massive mean medical mighty mild minor missing modern
modest mysterious naked narrow nasty natural neat necessary nervous new next nice noble noisy normal
obvious odd old only open opposite ordinary original outer painful pale patient peaceful perfect
pink plain pleasant polite poor popular possible precious pretty private proper proud public pure
purple quick quiet random rapid rare raw ready real recent red regular rich right ripe rotten rough
round royal rude rusty sad safe salty same scared scary secret selfish serious sharp shiny short shy
sick silent silly similar simple single sleepy slight slim slow small smart smooth soft solid sore
sour spare special spicy square steady steep sticky stiff straight strange strict strong stubborn
stupid sudden sunny super sure sweet swift tall tame tasty terrible thick thin thirsty tidy tight
tiny tired tough tropical true typical ugly unusual upper urgent useful usual vague vast violent
visible warm weak wealthy weird wet white whole wicked wide wild windy wise wonderful wooden worse
worst worthy wrong yellow young
""".split()

ADVERBS = """
again ago almost alone already also always anyway apart around away badly barely bravely briefly
brightly calmly carefully carelessly certainly cheerfully clearly closely completely correctly daily
deeply directly easily elsewhere enough especially even eventually everywhere exactly fairly finally
forever fortunately forward gently gladly gradually greatly happily hardly here honestly however
immediately indeed indoors inside instead just kindly lately later loudly luckily maybe mainly
meanwhile merely mostly mysteriously nearby nearly neatly never nevertheless nicely nobly normally
now nowhere obviously occasionally often once openly otherwise outdoors outside partly patiently
perfectly perhaps politely possibly probably properly proudly quickly quietly quite rapidly rarely
rather really recently regularly roughly rudely sadly safely secretly seldom seriously sharply
shortly silently simply slightly slowly softly sometimes somewhere soon still strangely strongly
suddenly surely sweetly then there therefore thus tightly today together tomorrow tonight too totally
truly twice upstairs usually very well wildly wisely yesterday yet
""".split()

FUNCTION_WORDS = """
a an the this that these those my your his her its our their I you he she it we they me him us them
and or but so because if when while until since though although unless than as of in on at by for
with without from into onto over under above below between behind beside beyond near through across
along against about after before during toward within upon among not no yes who what which where why
how whose each every some any many much few several most all both either neither other another such
is are was were be been being am do does did done have has had can could will would shall should may
might must
""".split()

NAMES = """
Adam Alice Amy Andrew Anna Arthur Barbara Ben Betty Bob Brian Carl Carol Charles Charlie Chris Daniel
David Diana Donna Dorothy Edward Elizabeth Ella Emily Emma Eric Ethan Eva Frank Fred George Grace
Hannah Harry Heather Helen Henry Isaac Jack Jacob James Jane Jason Jennifer Jessica Jim Joe John Jordan
Joseph Julia Karen Kate Kevin Laura Leo Linda Lisa Lucy Luke Margaret Maria Mark Martin Mary Matthew
Max Megan Michael Mike Molly Nancy Nathan Nick Nicole Nora Oliver Olivia Oscar Patrick Paul Peter
Philip Rachel Ralph Rebecca Richard Robert Robin Roger Rose Ruth Ryan Sam Samuel Sandra Sarah Scott
Simon Sophie Stephen Steve Susan Teresa Thomas Tim Toby Tom Tony Vera Victor Victoria Walter Wendy
William Zoe
""".split()

PLACES = """
Africa America Asia Australia Berlin Boston Brazil Britain California Canada Chicago China Cuba Denmark
Dublin Egypt England Europe Florida France Germany Greece Holland India Ireland Italy Japan Kansas
Kenya London Madrid Mexico Moscow Norway Ohio Oregon Paris Poland Portugal Rome Russia Scotland Spain
Sweden Texas Tokyo Turkey Vienna
""".split()

# Spellings that the lists above have too little of.
SPELLINGS = """
ache aisle anchor antique aqua awe ballet bouquet bough bought boycott bravo breath breathe brought
bruise buoy calves chaos character chasm chef chemist choir chord chute circuit colonel conscience
cough courage cue debt designer doubtful dough draught drought echo edge eight eighth eighteen either
enough equip exhaust exhibit exist eyebrow fatigue feud flaw foreign freight fudge gauge ghost ghoul
giraffe gnome gnaw guilt gym gypsy haul hawk hiccup hoax honor hymn jaw jeep jigsaw jolt juice kayak
keen knack kneel knit knob knuckle lamb language laugh lawn league leisure leopard liquid loaf lodge
loyal machine maize mauve measure mechanic mosquito mustache myth naive neigh nephew nuisance oath
onion ooze ought owe oyster ozone paradigm parachute penguin phantom phase pheasant phoenix photograph
physical pneumonia poison pour psalm psychology pyramid quake qualify quarrel quartz quest queue quote
raw receive reign rhyme rouge rough route salmon sauce scene scent schedule scheme school science
scissors screw seize shield shriek siege sigh sleigh sought soup special squawk squeak squirm stomach
straight subtle suede suite sword syrup technique though thought through thorough thumb toil tomb
tongue tough treasure trough tsunami unique usual vague vein vibrate view vogue voyage waltz warn
weigh weird whale wharf whistle whole wheeze wrap wrestle wrinkle wrong xylophone yacht yawn yeast
yield yoga young zeal zero zigzag zinc zone azure beige garage massage mirage pleasure vision fusion
nation motion station mission passion ocean social patient ancient precious gracious cautious luxury
exam example exact taxi expert extra oxygen box fixed mixed next texture action active actor
butterfly nature picture future mixture creature adventure capture lecture feature fortune
badge bridge budge cage change charge dodge fridge giant ginger gentle giraffe hedge huge judge
bathe clothe father feather gather leather mother neither other rather smooth soothe weather whether
path bath both cloth cloth death earth faith fifth growth health month mouth north south teeth tooth
among bang bring cling fling gang hang hungry king long lung ring sing song spring string strong swing
bore chore core fair fear fire flour four hair hear here hire hour near pair pure rear roar share
shore sour square stair steer sure tear tire tour tower wear wire year yours
boil boy choice coin enjoy join joy moist noise oil oyster point soil spoil toy voice
allow brown cloud clown couch cow crowd doubt down flower found frown hound house loud mouse now
blue blew chew clue crew cruise dew few fuel fruit glue grew juice knew new shoe soup suit true two
""".split()

NUMBERS = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen twenty thirty forty fifty sixty seventy eighty ninety
""".split()

WEEKDAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = """
January February March April May June July August September October November December
""".split()
