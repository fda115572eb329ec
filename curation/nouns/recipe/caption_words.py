"""Words that captions are full of and the treebanks hardly have, by Penn tag: drawn into sentences of the treebanks.

Most are plain gaps (skateboard, grassy). Some lean the other way in the treebanks: *features* and *captures* are nouns
there, and verbs in nine of ten machine captions.
"""

from typing import Final

CAPTION_WORDS: Final = {
    tag: tuple(words.split())
    for tag, words in {
        "VBZ": """features captures depicts showcases displays highlights portrays shows surrounds overlooks complements
            rests sits stands hangs rides holds wears poses leans peeks grazes reveals frames contrasts stretches
            dominates fills covers lines extends serves""",
        "VBG": """surfing skiing skateboarding snowboarding grazing posing wearing holding swinging slicing petting
            paddling cycling jogging leaning peeking hanging resting crossing smiling capturing featuring showcasing
            displaying surrounding overlooking gliding crouching perching chewing""",
        "VBN": """parked perched seated stacked decorated lined dressed surrounded topped mounted painted garnished
            isolated framed embroidered scattered adorned positioned arranged draped illuminated tiled plated""",
        "JJ": """wooden snowy sandy grassy cloudy sunny rocky leafy furry fluffy striped dotted plaid floral metallic
            shiny glossy matte blurry colorful vibrant cozy rustic ornate ceramic stainless vintage rainy foggy misty
            dusty brown purple turquoise beige teal maroon pink yellow grey red blue green white black sleek serene
            picturesque lush curly sleeveless minimalist abstract seamless handmade waterproof printable""",
        "NN": """umbrella skateboard surfboard snowboard wetsuit frisbee giraffe zebra elephant toddler skier surfer
            skateboarder snowboarder cyclist motorcyclist pedestrian sidewalk crosswalk hydrant backpack handbag
            suitcase racket pizza sandwich donut broccoli carrot banana laptop keyboard microwave refrigerator
            countertop sink toilet bathtub bookshelf couch sofa pillow blanket vase bouquet kite bench fence brick
            concrete gravel meadow pasture slope hillside shoreline skyline silhouette background foreground backdrop
            portrait illustration wallpaper necklace bracelet earring pendant sweater hoodie jacket dress sneaker
            leather denim cotton velvet snow sand grass tennis baseball batter umpire lamp chandelier doorway balcony
            rooftop clock tower scene image photo sketch watercolor canvas poster sticker mug tote""",
        "NNS": """umbrellas skateboards surfboards giraffes zebras elephants toddlers skiers surfers cyclists
            pedestrians backpacks handbags suitcases sandwiches donuts carrots bananas oranges strawberries tomatoes
            sneakers earrings sunglasses jeans pillows cushions blankets buses motorcycles bicycles cows sheep vases
            flowers petals leaves branches buildings skyscrapers windows shelves cabinets appliances utensils bowls
            plates tiles bricks clouds waves shadows reflections silhouettes slopes rocks features details elements
            scenes images stripes patterns signs""",
    }.items()
}
